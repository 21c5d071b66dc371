package scsi

import "context"

// Bits of byte 4 of START STOP UNIT.
const (
	startBit           = 1 << 0
	loadEjectBit       = 1 << 1
	powerConditionMask = 0xF0
)

// decodeTestUnitReady is TEST UNIT READY, SPC-4 section 6.47: that the unit is
// ready was asked before.
func decodeTestUnitReady(request) Command { return Command{} }

// decodeStartStopUnit is START STOP UNIT, SBC-3 section 5.21. There are no
// power conditions but active and stopped, and no medium to eject.
func decodeStartStopUnit(r request) Command {
	switch {
	case r.cdb[4]&powerConditionMask != 0:
		return r.fail(invalidField(4, 7))
	case r.cdb[4]&loadEjectBit != 0:
		return r.fail(invalidField(4, 1))
	}
	return Command{Kind: Exec}
}

// executeStartStopUnit starts the unit, or stops it when everything is stable.
func executeStartStopUnit(_ context.Context, c Command, _ []byte) ([]byte, Status) {
	u := c.itl.unit
	if c.cdb[4]&startBit != 0 {
		u.stopped.Store(false)
		return nil, StatusGood
	}
	if st := c.itl.flush(); st.code != Good {
		return nil, st
	}
	u.stopped.Store(true)
	return nil, StatusGood
}
