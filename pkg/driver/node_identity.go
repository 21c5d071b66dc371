package driver

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/nacl/box"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/durable"
)

// identityFile is where a node keeps its identity, in the plugin's directory.
const identityFile = "identity.json"

// NodeIdentity is a node's NodeID and the private half of its key.
type NodeIdentity struct {
	NodeID
	PrivateKey [32]byte
	// NodeName is the Kubernetes node that the identity was minted for.
	NodeName string
}

// String keeps the key out of logs.
func (n NodeIdentity) String() string { return n.NodeID.String() }

// GoString keeps the key out of %#v.
func (n NodeIdentity) GoString() string { return n.NodeID.String() }

// identityRecord is the file's content.
type identityRecord struct {
	UUID       string `json:"uuid"`
	NodeName   string `json:"nodeName"`
	PublicKey  []byte `json:"publicKey"`
	PrivateKey []byte `json:"privateKey"`
}

// LoadNodeIdentity reads the node's identity from dir, and mints one, durably,
// where there is none or where it was minted for a node of another name: the
// disk was cloned then, and two nodes with one initiator name would take each
// other's volumes. A file that does not parse is an error: the name of live
// sessions must not change by accident.
func LoadNodeIdentity(dir, nodeName string) (NodeIdentity, error) {
	path := filepath.Join(dir, identityFile)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return mintNodeIdentity(path, nodeName)
	case err != nil:
		return NodeIdentity{}, fmt.Errorf("node identity: %w", err)
	}
	id, err := parseNodeIdentity(data)
	if err != nil {
		return NodeIdentity{}, fmt.Errorf("node identity %s: %w: restore it, or remove it when no volume is staged", path, err)
	}
	if id.NodeName != nodeName {
		return mintNodeIdentity(path, nodeName)
	}
	return id, nil
}

func parseNodeIdentity(data []byte) (NodeIdentity, error) {
	var r identityRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return NodeIdentity{}, err
	}
	id := NodeIdentity{NodeID: NodeID{UUID: r.UUID}, NodeName: r.NodeName}
	if !isNodeUUID(r.UUID) || len(r.PublicKey) != len(id.PublicKey) || len(r.PrivateKey) != len(id.PrivateKey) {
		return NodeIdentity{}, errors.New("not an identity")
	}
	copy(id.PublicKey[:], r.PublicKey)
	copy(id.PrivateKey[:], r.PrivateKey)
	return id, nil
}

func mintNodeIdentity(path, nodeName string) (NodeIdentity, error) {
	public, private, err := box.GenerateKey(rand.Reader)
	if err != nil {
		return NodeIdentity{}, fmt.Errorf("node identity: %w", err)
	}
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return NodeIdentity{}, fmt.Errorf("node identity: %w", err)
	}
	id := NodeIdentity{
		NodeID:     NodeID{UUID: hex.EncodeToString(raw[:]), PublicKey: *public},
		PrivateKey: *private, NodeName: nodeName,
	}
	data, err := json.Marshal(identityRecord{
		UUID: id.UUID, NodeName: nodeName, PublicKey: public[:], PrivateKey: private[:],
	})
	if err != nil {
		return NodeIdentity{}, fmt.Errorf("node identity: %w", err)
	}
	if err := durable.WriteFile(path, data); err != nil {
		return NodeIdentity{}, fmt.Errorf("node identity: %w", err)
	}
	return id, nil
}
