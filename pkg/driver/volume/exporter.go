package volume

import (
	"context"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// Exporter serves devices to initiators. Targets are known by their names;
// nobody but those permitted gets in.
type Exporter interface {
	// Export adds a target with one logical unit at LUN 0 and nobody
	// permitted.
	Export(target string, lun iscsitarget.LUNConfig) error
	// Unexport fences everyone and removes the target; it does not close
	// the device. Nil only when no system call on the device is in flight;
	// the context's error when that is not so in time, and it may be called
	// again. blockdev.ErrLostWrites where all that is so, but what was
	// written may be lost. An unknown target is nil.
	Unexport(ctx context.Context, target string) error
	// Permit adds or replaces the grant of an initiator.
	Permit(target string, g iscsitarget.Grant) error
	// Revoke fences one initiator, with the same promise as Unexport. An
	// unknown target or initiator is nil.
	Revoke(ctx context.Context, target, initiator string) error
	// CapacityChanged tells initiators that the device grew.
	CapacityChanged(target string)
	// Shutdown ends all sessions and waits for their I/O.
	Shutdown(ctx context.Context) error
}

// exportLUN is the logical unit that every volume is exported at.
const exportLUN = 0

// lunConfig describes a volume's logical unit.
func lunConfig(uuid string, naa uint64, device blockdev.Device) iscsitarget.LUNConfig {
	return iscsitarget.LUNConfig{
		Device:            device,
		Vendor:            Vendor,
		Product:           Product,
		Revision:          revision,
		Serial:            uuid,
		NAA:               naa,
		T10ID:             uuid,
		PhysicalBlockSize: physicalBlock,
		WriteCache:        true,
	}
}

// physicalBlock is the page, in which the pool's file systems write.
const physicalBlock = 4096

// revision is the INQUIRY product revision level. It is part of what multipath
// and udev may match on, so it does not follow the program's version.
const revision = "1"

// grant is the right that an attachment gives.
func grant(a Attachment) iscsitarget.Grant {
	return iscsitarget.Grant{
		Initiator: InitiatorName(a.Node.UUID),
		ReadOnly:  a.WriteProtected(),
		CHAP: &iscsitarget.CHAP{
			User:         a.Credentials.User,
			Secret:       a.Credentials.Secret,
			StageNonce:   true,
			MutualUser:   a.Credentials.MutualUser,
			MutualSecret: a.Credentials.MutualSecret,
		},
	}
}
