package scsi

import (
	"math/bits"
	"sync/atomic"
)

// attention is a unit attention condition (SAM-5 section 5.14). Lower values
// take precedence.
type attention uint8

const (
	attentionPowerOn attention = iota
	attentionDeviceReset
	attentionNexusLoss
	attentionReportedLUNs
	attentionCapacity
	attentionModeParameters
	attentionAccessState
	attentionTimestamp
	attentionReservationsPreempted
	attentionReservationsReleased
	attentionRegistrationsPreempted
	attentionThreshold
	attentionTasksCleared // behind what PREEMPT AND ABORT has to say of its cause
	attentionProtocolEvent
)

// attentionCodes are the additional sense codes, by attention.
var attentionCodes = [...]uint16{
	attentionPowerOn:      ascPowerOnOrReset,
	attentionDeviceReset:  ascDeviceReset,
	attentionNexusLoss:    ascNexusLoss,
	attentionReportedLUNs: ascReportedLUNsChanged,
	attentionCapacity:     ascCapacityChanged,

	attentionModeParameters: ascModeParametersChanged,
	attentionAccessState:    ascAccessStateChanged,
	attentionTimestamp:      ascTimestampChanged,

	attentionReservationsPreempted:  ascReservationsPreempted,
	attentionReservationsReleased:   ascReservationsReleased,
	attentionRegistrationsPreempted: ascRegistrationsPreempted,

	attentionThreshold:    ascThresholdReached,
	attentionTasksCleared: ascTasksCleared,

	attentionProtocolEvent: ascProtocolEvent,
}

// resets are the attentions that say the same thing, that state was lost: one
// report is enough for all of them.
const resets = 1<<attentionPowerOn | 1<<attentionDeviceReset | 1<<attentionNexusLoss

// covered are the conditions that a reset makes old news of: each says what the
// ones below it do, and more. What a reset does not bring about, as another
// capacity, stays.
var covered = [...]uint32{
	attentionPowerOn:     1<<attentionDeviceReset | 1<<attentionNexusLoss | 1<<attentionModeParameters | 1<<attentionTasksCleared | 1<<attentionProtocolEvent,
	attentionDeviceReset: 1<<attentionNexusLoss | 1<<attentionModeParameters | 1<<attentionTasksCleared | 1<<attentionProtocolEvent,
	attentionNexusLoss:   1<<attentionTasksCleared | 1<<attentionProtocolEvent,
}

// attentions are the pending conditions of one I_T_L nexus, a bit for each, so
// that a condition is queued once however often it is established.
type attentions struct{ pending atomic.Uint32 }

func (a *attentions) establish(u attention) {
	if int(u) < len(covered) {
		a.pending.And(^covered[u])
	}
	a.pending.Or(1 << u)
}

func (a *attentions) clear(u attention) { a.pending.And(^uint32(1 << u)) }

// peek is the pending condition of the highest precedence, and whether there are
// others.
func (a *attentions) peek() (next attention, more, pending bool) {
	now := a.pending.Load()
	if now == 0 {
		return 0, false, false
	}
	return attention(bits.TrailingZeros32(now)), now&(now-1) != 0, true
}

// take removes the pending condition of the highest precedence.
func (a *attentions) take() (attention, bool) {
	for {
		old := a.pending.Load()
		if old == 0 {
			return 0, false
		}
		u := attention(bits.TrailingZeros32(old))
		taken := uint32(1) << u
		if taken&resets != 0 {
			taken = resets
		}
		if a.pending.CompareAndSwap(old, old&^taken) {
			return u, true
		}
	}
}

func (u attention) status() Status { return check(unitAttention, attentionCodes[u]) }

// attentionStatus adds what the unit knows of the condition: which threshold
// descriptor of the mode page (SBC-4 section 4.7.3.7.6).
func (u *Unit) attentionStatus(a attention) Status {
	if a == attentionThreshold {
		return a.status().withInfo(u.thresholds.crossed.Load())
	}
	return a.status()
}
