package volume

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// The names below are for ever: they are in users' PersistentVolumes and on
// their hosts. All are pure functions of a UUID.
const (
	iqnPrefix = "iqn.2026-11.io.csi-ietd:"
	// Vendor and Product are the logical unit's standard INQUIRY fields.
	Vendor  = "CSI-IETD"
	Product = "PV"
)

// ID is the CSI volume_id of a volume in a pool.
func ID(poolID, volumeUUID string) string { return poolID + "." + volumeUUID }

// TargetName is the iSCSI name that a volume is exported under, at LUN 0.
func TargetName(volumeUUID string) string { return iqnPrefix + volumeUUID }

// InitiatorName is the iSCSI name that a node logs in under.
func InitiatorName(nodeUUID string) string { return iqnPrefix + "node." + nodeUUID }

// NAA is a logical unit's locally assigned designator (NAA 3h, SPC-5 section
// 7.7.6.5.4): the type in the top four bits, then the first 60 bits of the
// SHA-256 of the UUID's text.
func NAA(volumeUUID string) uint64 {
	sum := sha256.Sum256([]byte(volumeUUID))
	return 0x3<<60 | binary.BigEndian.Uint64(sum[:8])>>4
}

// parseID returns the UUID in a volume_id of this pool; what we did not make is
// ErrNotFound.
func parseID(poolID, id string) (string, error) {
	rest, ok := strings.CutPrefix(id, poolID+".")
	if !ok || !isCanonicalUUID(rest) {
		return "", fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return rest, nil
}

func isCanonicalUUID(s string) bool {
	u, err := uuid.Parse(s)
	return err == nil && u.String() == s
}
