package scsi

import (
	"context"
	"encoding/binary"
)

// accessState is an asymmetric access state (SPC-4 section 5.15.2).
type accessState = uint32

const (
	activeOptimized    accessState = 0x0
	activeNonOptimized accessState = 0x1
	standby            accessState = 0x2
	unavailable        accessState = 0x3
)

// There is one target port group, and its state is the unit's.
const (
	// supportedStates are AO_SUP, AN_SUP, S_SUP and U_SUP.
	supportedStates = 0x0F
	// byCommand is the STATUS CODE of a state that SET TARGET PORT GROUPS set.
	byCommand      = 0x01
	extendedHeader = 1 << 5 // PARAMETER DATA FORMAT
	// bothTPGS is the TPGS field of standard INQUIRY data: implicit and
	// explicit.
	bothTPGS = 3 << 4
)

// decodeReportGroups is REPORT TARGET PORT GROUPS, SPC-4 section 6.37.
func decodeReportGroups(r request) Command {
	format := r.cdb[1] & 0xE0
	if format > extendedHeader {
		return r.fail(invalidField(1, 7))
	}
	u, id := r.itl.unit, r.nexus.config.TPGT
	state := u.accessState.Load()
	b := make([]byte, 4, 20)
	if format == extendedHeader {
		b = append(b, 1<<4, 0, 0, 0)
	}
	b = append(b, byte(state), supportedStates)
	b = binary.BigEndian.AppendUint16(b, id)
	b = append(b, 0, 0, 0, 1)
	if u.accessSet.Load() {
		b[len(b)-3] = byCommand
	}
	b = binary.BigEndian.AppendUint16(append(b, 0, 0), id)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return r.data(b, bigEndian(r.cdb[6:10]))
}

const (
	groupsHeader     = 4
	groupsDescriptor = 4
	maxGroups        = 16
)

// decodeSetGroups is SET TARGET PORT GROUPS, SPC-4 section 6.43.
func decodeSetGroups(r request) Command {
	switch length := bigEndian(r.cdb[6:10]); {
	case length == 0:
		return Command{}
	case length < groupsHeader:
		return r.fail(check(illegalRequest, ascParameterListLength))
	case length > groupsHeader+maxGroups*groupsDescriptor:
		return r.fail(invalidField(6, 7))
	default:
		return Command{Kind: Exec, Dir: DataOut, Length: int64(length)}
	}
}

// executeSetGroups checks the whole list before it changes anything.
func executeSetGroups(_ context.Context, c Command, params []byte) ([]byte, Status) {
	if len(params) < groupsHeader || (len(params)-groupsHeader)%groupsDescriptor != 0 {
		return nil, check(illegalRequest, ascParameterListLength)
	}
	next, set := accessState(0), false
	for at := groupsHeader; at < len(params); at += groupsDescriptor {
		d := params[at : at+groupsDescriptor]
		state := accessState(d[0] & 0xF)
		if state > unavailable {
			return nil, invalidParameter(at, 3)
		}
		if binary.BigEndian.Uint16(d[2:]) != c.itl.nexus.config.TPGT || set {
			return nil, invalidParameter(at+2, 7)
		}
		next, set = state, true
	}
	if set {
		c.itl.setAccessState(next)
	}
	return nil, StatusGood
}

func (l *itl) setAccessState(next accessState) {
	u := l.unit
	u.accessSet.Store(true)
	if u.accessState.Swap(next) != next {
		u.establishForOthers(l, attentionAccessState)
	}
}

// admitAccessState asks whether a command may be processed in the state of the
// port group.
func (r request) admitAccessState() Status {
	switch r.itl.unit.accessState.Load() {
	case standby:
		if !r.op.passes && !r.op.anyState && !r.op.standby {
			return check(notReady, ascStandby)
		}
	case unavailable:
		if !r.op.passes && !r.op.anyState {
			return check(notReady, ascUnavailable)
		}
	}
	return StatusGood
}
