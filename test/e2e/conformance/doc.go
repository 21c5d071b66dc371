// Package conformance holds tests that run other people's initiators, libiscsi
// and QEMU, against `csi-ietd ietd`. They need no privileges, but for
// TestIetdWithLibiscsi, which makes network namespaces and a loop device.
package conformance
