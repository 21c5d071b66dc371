package driver

// NodeIdentity is a node's NodeID and the private half of its key.
type NodeIdentity struct {
	NodeID
	PrivateKey [32]byte
	// NodeName is the Kubernetes node that the identity was minted for.
	NodeName string
}
