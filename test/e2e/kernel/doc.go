// Package kernel has the tests of CSI's calls against real kernels, in the lab
// and without Kubernetes: what is attached, written, cut off and lost there is
// what happens under a cluster. Some are of the target alone, as `csi-ietd ietd`
// serves it, and of what the kernel's initiator and sg3-utils make of it.
package kernel
