// Package e2e is the end-to-end suite: it installs csi-ietd by its chart into
// the cluster that kubectl points at, uses it as a user would, and takes it
// away again. It speaks the Kubernetes API and kubectl alone; what no API can
// do (to cut a node's power) it asks of the cluster's provider.
//
// README.md says how to run it, and on which clusters.
package e2e
