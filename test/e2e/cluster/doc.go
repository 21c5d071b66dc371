// Package cluster is a Kubernetes cluster in the lab: etcd and the control
// plane as plain processes in the lab's own network, and guests as nodes, each
// with containerd, runc, kubelet and kube-proxy, and a kernel initiator.
//
// Everything is stock: kubelet and its like are built from Kubernetes' modules
// (build/), etcd, containerd and runc are Debian's. Images come from archives,
// since the lab reaches no registry.
//
// Addresses: the API server is 10.77.0.1:6443, the nodes 10.77.0.11 and up,
// pods 10.79.<node>.0/24 and Services 10.96.0.0/24. On the last node
// kubelet has a network namespace of its own, as in a kind node, and iscsid has
// not; such a node is 10.77.0.100 and its number. Cutting a node's storage
// network cuts it off the cluster.
package cluster
