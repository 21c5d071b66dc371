// Package kernel has the tests of CSI's calls against real kernels, in the lab
// and without Kubernetes: what is attached, written, cut off and lost there is
// what happens under a cluster.
package kernel
