package driver

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// iqnPrefix begins every iSCSI name that csi-ietd makes (RFC 7143 section
// 4.2.7.1). It ends up on users' hosts and never changes.
const iqnPrefix = "iqn.2026-11.io.csi-ietd:"

// ErrInvalidNodeID is a node_id that no csi-ietd node has given.
var ErrInvalidNodeID = errors.New("not a csi-ietd node id")

// NodeID is what a node tells of itself in NodeGetInfo: who it is, and the key
// that credentials for it are sealed to. Nodes are the same when their UUID is;
// the key may change.
type NodeID struct {
	// UUID is 32 lower-case hexadecimal digits.
	UUID string
	// PublicKey is an X25519 public key (RFC 7748).
	PublicKey [32]byte
}

// String is the node_id on the wire: the UUID, a dot, and the key in unpadded
// base64url; 76 bytes.
func (n NodeID) String() string {
	return n.UUID + "." + base64.RawURLEncoding.EncodeToString(n.PublicKey[:])
}

// ParseNodeID is the inverse of String and takes nothing else; its error is
// ErrInvalidNodeID.
func ParseNodeID(s string) (NodeID, error) {
	uuid, key, ok := strings.Cut(s, ".")
	if !ok || !isNodeUUID(uuid) {
		return NodeID{}, fmt.Errorf("%w: want <32 hex digits>.<key>", ErrInvalidNodeID)
	}
	id := NodeID{UUID: uuid}
	if len(key) != base64.RawURLEncoding.EncodedLen(len(id.PublicKey)) {
		return NodeID{}, fmt.Errorf("%w: the key after the dot has the wrong length", ErrInvalidNodeID)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(key)
	if err != nil {
		return NodeID{}, fmt.Errorf("%w: the key after the dot is not base64url", ErrInvalidNodeID)
	}
	copy(id.PublicKey[:], raw)
	// The decoder skips line breaks, so only the way back proves equality;
	// a zero key would seal secrets for everyone.
	if id.String() != s || id.PublicKey == [32]byte{} {
		return NodeID{}, fmt.Errorf("%w: the key after the dot is not canonical", ErrInvalidNodeID)
	}
	return id, nil
}

// InitiatorName is the iSCSI name that the node of that UUID logs in under.
func InitiatorName(nodeUUID string) string { return iqnPrefix + "node." + nodeUUID }

func isNodeUUID(s string) bool { return len(s) == 32 && isLowerHex(s) }

func isLowerHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
