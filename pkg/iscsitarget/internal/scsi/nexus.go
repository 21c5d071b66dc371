package scsi

import (
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// NexusConfig describes an I_T nexus.
type NexusConfig struct {
	// InitiatorPort and TargetPort are SCSI port names: for iSCSI
	// "iqn...,i,0x<12 hex ISID>" and "iqn...,t,0x<4 hex TPGT>".
	InitiatorPort string
	TargetPort    string
	// TPGT is the relative target port identifier of VPD page 83h.
	TPGT uint16
	// ReadOnly refuses this initiator's writes with DATA PROTECT, whatever
	// the unit allows.
	ReadOnly bool
	// Stage is compared with the stages that lost acknowledged writes.
	Stage blockdev.Stage
}

// Nexus is an initiator port's relation with the target device (I_T nexus,
// SAM-5 section 4.10). All methods may be called concurrently.
type Nexus struct {
	config    NexusConfig
	inventory *Inventory
	// luns is replaced, never changed, under the inventory's lock.
	luns atomic.Pointer[map[uint16]*itl]
}

// itl is an I_T_L nexus: what one initiator port shares with one unit.
type itl struct {
	nexus      *Nexus
	unit       *Unit
	attentions attentions
	tasks      taskSet // where TST gives each nexus its own
	// lost says that acknowledged writes of this nexus's stage are gone:
	// every medium access fails until the initiator stages anew.
	lost atomic.Bool
	// copies are the third-party copies that were asked for.
	copies copies
}

// Detach ends the nexus (I_T nexus loss). Commands that were decoded before
// still finish; the caller waits for them.
func (n *Nexus) Detach() { n.inventory.detach(n) }

// lookup finds the I_T_L nexus behind a LUN, nil where there is none.
func (n *Nexus) lookup(lun [8]byte) *itl {
	number, ok := parseLUN(lun)
	if !ok {
		return nil
	}
	return (*n.luns.Load())[number]
}

// readOnly says that writes through this I_T_L nexus are refused.
func (l *itl) readOnly() bool {
	return l.nexus.config.ReadOnly || l.unit.config.ReadOnly || l.unit.settings.Load().WriteProtect
}
