package scsi

import (
	"encoding/binary"
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
	// Functions are the task management functions that the transport offers.
	Functions TaskFunctions
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
	// fault is the task set in which this nexus has an ACA condition, nil for
	// none. It changes under the unit's lock.
	fault atomic.Pointer[taskSet]
	// lost says that acknowledged writes of this nexus's stage are gone:
	// every medium access fails until the initiator stages anew.
	lost atomic.Bool
	// copies are the third-party copies that were asked for.
	copies copies
}

// TaskFunctions are task management functions as bytes 0 and 1 of what REPORT
// SUPPORTED TASK MANAGEMENT FUNCTIONS returns (SPC-4 section 6.36).
type TaskFunctions uint16

// The task management functions of SAM-5 section 7.
const (
	DoesAbortTask        TaskFunctions = 1 << 15
	DoesAbortTaskSet     TaskFunctions = 1 << 14
	DoesClearACA         TaskFunctions = 1 << 13
	DoesClearTaskSet     TaskFunctions = 1 << 12
	DoesLogicalUnitReset TaskFunctions = 1 << 11
	DoesQueryTask        TaskFunctions = 1 << 10
	DoesQueryAsyncEvent  TaskFunctions = 1 << 2
	DoesQueryTaskSet     TaskFunctions = 1 << 1
	DoesNexusReset       TaskFunctions = 1 << 0
)

// Lose is the I_T nexus loss of a nexus that goes on (SAM-5 section 6.3.4, I_T
// NEXUS RESET): what RESERVE holds for it is released, its ACA conditions are
// cleared, and it is told on every unit by a unit attention. The caller has ended its
// commands.
func (n *Nexus) Lose() {
	n.LoseACA()
	for _, l := range *n.luns.Load() {
		l.unit.dropReserver(l)
		l.attentions.establish(attentionNexusLoss)
	}
}

// Asynchronous is what QUERY ASYNCHRONOUS EVENT tells of a logical unit (SAM-5
// section 7.10): UADE DEPTH and SENSE KEY, ADDITIONAL SENSE CODE and its qualifier
// of the unit attention that will be reported next; false where none is pending.
func (n *Nexus) Asynchronous(lun [8]byte) (event [3]byte, pending bool) {
	l := n.lookup(lun)
	if l == nil {
		return event, false
	}
	next, more, pending := l.attentions.peek()
	if !pending {
		return event, false
	}
	const one, several = 1 << 4, 2 << 4 // UADE DEPTH
	event[0] = one | byte(unitAttention)
	if more {
		event[0] = several | byte(unitAttention)
	}
	binary.BigEndian.PutUint16(event[1:], attentionCodes[next])
	return event, true
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
