package scsi

import "context"

// Bits of byte 4 of START STOP UNIT.
const (
	startBit     = 1 << 0
	loadEjectBit = 1 << 1
	noFlushBit   = 1 << 2
)

// Values of POWER CONDITION, the high half of byte 4 (SBC-3 section 5.21).
const (
	startValid    = 0x0 // the START bit says
	askActive     = 0x1
	askIdle       = 0x2
	askStandby    = 0x3
	askControl    = 0x7 // the unit's own timers go on: it has none
	forceIdle0    = 0xA
	forceStandby0 = 0xB
)

// Power conditions of the unit, in which nothing but "stopped" changes what it
// does: an access to the medium ends the others.
const (
	powerActive uint32 = iota
	powerIdleA
	powerIdleB
	powerIdleC
	powerStandbyZ
	powerStandbyY
	powerStopped
)

// powerCodes are what REQUEST SENSE tells of a condition that a command brought
// about.
var powerCodes = [...]uint16{
	powerIdleA: 0x5E03, powerIdleB: 0x5E06, powerIdleC: 0x5E08, powerStandbyZ: 0x5E04, powerStandbyY: 0x5E0A,
	powerStopped: 0,
}

// conditions are what POWER CONDITION and its modifier ask for.
var conditions = map[byte][]uint32{
	askActive:     {powerActive},
	askIdle:       {powerIdleA, powerIdleB, powerIdleC},
	askStandby:    {powerStandbyZ, powerStandbyY},
	askControl:    {powerActive},
	forceIdle0:    {powerIdleA, powerIdleB, powerIdleC},
	forceStandby0: {powerStandbyZ, powerStandbyY},
}

// decodeTestUnitReady is TEST UNIT READY, SPC-4 section 6.47: that the unit is
// ready was asked before.
func decodeTestUnitReady(request) Command { return Command{} }

// decodeStartStopUnit is START STOP UNIT, SBC-3 section 5.21. There is no medium
// to eject.
func decodeStartStopUnit(r request) Command {
	condition, modifier := r.cdb[4]>>4, r.cdb[3]&0xF
	if condition == startValid {
		if r.cdb[4]&loadEjectBit != 0 {
			return r.fail(invalidField(4, 1))
		}
		return Command{Kind: Exec}
	}
	switch those, known := conditions[condition]; {
	case !known:
		return r.fail(invalidField(4, 7))
	case int(modifier) >= len(those):
		return r.fail(invalidField(3, 3))
	}
	return Command{Kind: Exec}
}

// executeStartStopUnit changes the power condition: one that is no longer
// active when everything is stable.
func executeStartStopUnit(_ context.Context, c Command, _ []byte) ([]byte, Status) {
	next := powerStopped
	if condition := c.cdb[4] >> 4; condition != startValid {
		next = conditions[condition][c.cdb[3]&0xF]
	} else if c.cdb[4]&startBit != 0 {
		next = powerActive
	}
	u := c.itl.unit
	if next != powerActive && (next == powerStopped || c.cdb[4]&noFlushBit == 0) {
		if st := c.itl.flush(); st.code != Good {
			return nil, st
		}
	}
	u.power.Store(next)
	return nil, StatusGood
}

// wake ends a power condition that an access to the medium ends.
func (u *Unit) wake() {
	if p := u.power.Load(); p != powerActive && p != powerStopped {
		u.power.CompareAndSwap(p, powerActive)
	}
}
