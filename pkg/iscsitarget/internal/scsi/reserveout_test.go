package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

func TestRegister(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.out(portA, "conflict", actionRegister, 0, 7, 1) // not registered: the key must be 0
	p.out(portA, "good", actionRegister, 0, 0, 0)     // nothing to do
	p.keys(0)
	p.out(portA, "good", actionRegister, 0, 0, 1)
	p.keys(1, 1)
	p.out(portA, "conflict", actionRegister, 0, 0, 2)
	p.out(portA, "conflict", actionRegister, 0, 2, 2)
	p.keys(1, 1)
	p.out(portA, "good", actionRegister, 0xF5, 1, 2) // scope and type are ignored
	p.out(portB, "good", actionRegister, 0, 0, 2)    // two nexuses, one key
	p.keys(3, 2, 2)
	p.out(portA, "good", actionRegister, 0, 2, 0)
	p.keys(4, 2)
	p.out(portA, "good", actionRegisterIgnore, 0, 99, 3)
	p.out(portA, "good", actionRegisterIgnore, 0, 99, 4)
	p.out(portC, "good", actionRegisterIgnore, 0, 99, 0) // nothing to do
	p.keys(6, 2, 4)
	p.out(portA, "good", actionRegisterIgnore, 0, 99, 0)
	p.keys(7, 2)
	p.out(portB, "5/2600 param 20 bit 0", actionRegister, 0, 2, 3, aptpl) // nowhere to keep it
	p.out(portB, "5/2600 param 20 bit 3", actionRegisterIgnore, 0, 2, 3, specPorts)
	p.keys(7, 2)
	p.attentions("-", "-", "-")
}

// TestRegistrationOutlivesSession: it is the initiator port's, not the session's.
func TestRegistrationOutlivesSession(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.register()
	p.out(portA, "good", actionReserve, writeExclusive, 0xA, 0)
	p.nexuses[portA].Detach()
	p.run(portC, "conflict", write)
	p.login(portA)
	p.out(portA, "good", actionRelease, writeExclusive, 0xA, 0)
	p.unit.Reset()
	p.attentions("6/2903", "6/2903", "6/2903")
	p.keys(3, 0xA, 0xB, 0xC)
}

// TestLength: an exact length of the parameter list, and as many bytes as it says.
func TestLength(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	for action := byte(0); action < 8; action++ {
		for _, length := range []int{0, 1, 23, 25, 28, MaxParameterLength + 1} {
			want := "5/1A00"
			p.run(portA, want, fmt.Sprintf("5F %02X 01 0000 %08X 00", action, length), make([]byte, length)...)
		}
		for n := range reserveOutBytes {
			p.run(portA, "5/1A00", fmt.Sprintf("5F %02X 01 0000 00000018 00", action), make([]byte, n)...)
		}
	}
	for action := 8; action < 32; action++ {
		p.run(portA, "5/2400 byte 1 bit 4", fmt.Sprintf("5F %02X 01 0000 00000018 00", action), make([]byte, 24)...)
	}
	p.keys(0)
}

func TestReserveRelease(t *testing.T) {
	for i, kind := range reservationTypes {
		other := reservationTypes[(i+1)%len(reservationTypes)]
		p := newPorts(t, newDisk(64, 512))
		p.out(portA, "conflict", actionReserve, kind, 0, 0) // not registered
		p.out(portA, "conflict", actionRelease, kind, 0, 0)
		p.out(portA, "good", actionRegister, 0, 0, 0xA)
		p.out(portB, "good", actionRegister, 0, 0, 0xB)
		p.out(portA, "conflict", actionReserve, kind, 0xB, 0)
		p.out(portA, "good", actionRelease, kind, 0xA, 0) // nothing to release
		p.out(portA, "good", actionReserve, kind, 0xA, 0)
		p.out(portA, "good", actionReserve, kind, 0xA, 0)
		p.out(portA, "conflict", actionReserve, other, 0xA, 0)
		key := uint64(0xA)
		if kind.heldByAll() {
			key = 0
		}
		p.held(kind, key)
		p.out(portC, "conflict", actionReserve, kind, 0, 0)
		p.out(portC, "conflict", actionRelease, kind, 0, 0)
		p.out(portA, "conflict", actionRelease, kind, 0xB, 0)
		p.out(portA, "5/2604", actionRelease, other, 0xA, 0)
		p.out(portA, "5/2604", actionRelease, kind|0x10, 0xA, 0) // scope
		if kind.heldByAll() {
			p.out(portB, "good", actionReserve, kind, 0xB, 0)
			p.out(portB, "good", actionRelease, kind, 0xB, 0)
			p.attentions("6/2A04", "-", "-")
		} else {
			p.out(portB, "conflict", actionReserve, kind, 0xB, 0)
			p.out(portB, "good", actionRelease, kind, 0xB, 0) // without effect
			p.held(kind, key)
			p.out(portA, "good", actionRelease, kind, 0xA, 0)
			told := map[bool]string{true: "6/2A04", false: "-"}[kind.sharedByRegistrants()]
			p.attentions("-", told, "-")
		}
		p.held(noReservation, 0)
		p.keys(2, 0xA, 0xB)
	}
}

func TestReserveTypes(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.register()
	for kind := range reservationType(16) {
		if !kind.valid() {
			p.out(portA, "5/2400 byte 2 bit 3", actionReserve, kind, 0xA, 0)
		}
	}
	for scope := reservationType(0x10); scope <= 0xF0 && scope > 0; scope += 0x10 {
		p.out(portA, "5/2400 byte 2 bit 7", actionReserve, scope|writeExclusive, 0xA, 0)
	}
	p.held(noReservation, 0)
}

// TestUnregister ends the reservation with its last holder.
func TestUnregister(t *testing.T) {
	for _, kind := range reservationTypes {
		p := newPorts(t, newDisk(64, 512))
		p.out(portA, "good", actionRegister, 0, 0, 0xA)
		p.out(portB, "good", actionRegister, 0, 0, 0xB)
		p.out(portA, "good", actionReserve, kind, 0xA, 0)
		p.out(portA, "good", actionRegister, 0, 0xA, 0)
		if kind.heldByAll() {
			p.held(kind, 0)
			p.attentions("-", "-", "-")
			p.out(portB, "good", actionRegister, 0, 0xB, 0)
		} else if kind.sharedByRegistrants() {
			p.attentions("-", "6/2A04", "-")
		}
		p.held(noReservation, 0)
		p.attentions("-", "-", "-")
	}
}

func TestClear(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.register()
	p.out(portA, "good", actionReserve, exclusiveAccess, 0xA, 0)
	p.out(portB, "conflict", actionClear, 0, 0xA, 0)
	p.out(portB, "good", actionClear, 0, 0xB, 0)
	p.attentions("6/2A03", "-", "6/2A03")
	p.keys(4)
	p.held(noReservation, 0)
	p.out(portB, "conflict", actionClear, 0, 0xB, 0)
	p.run(portC, "good", ready)
}

// TestPreempt: who loses what, and what each is told.
func TestPreempt(t *testing.T) {
	const we, weRO, weAR, eaAR = writeExclusive, writeExclusiveRegistrants, writeExclusiveAll, exclusiveAccessAll
	for _, tt := range []struct {
		name    string
		holds   reservationType // by A, none where 0
		kind    reservationType
		key     uint64 // that B preempts
		want    string
		left    []uint64
		held    reservationType
		heldKey uint64
		told    [portCount]string
	}{
		{"a registration", 0, we, 0xC, "good", []uint64{0xA, 0xB}, 0, 0, [3]string{"-", "-", "6/2A05"}},
		{"a registration, under a reservation", we, weRO, 0xC, "good", []uint64{0xA, 0xB}, we, 0xA, [3]string{"-", "-", "6/2A05"}},
		{"the type is ignored then", we, 0xF, 0xC, "good", []uint64{0xA, 0xB}, we, 0xA, [3]string{"-", "-", "6/2A05"}},
		{"its own registration", 0, we, 0xB, "good", []uint64{0xA, 0xC}, 0, 0, [3]string{"-", "-", "-"}},
		{"no such key", we, we, 0xD, "conflict", []uint64{0xA, 0xB, 0xC}, we, 0xA, [3]string{"-", "-", "-"}},
		{"key 0", we, we, 0, "5/2600 param 8 bit 7", []uint64{0xA, 0xB, 0xC}, we, 0xA, [3]string{"-", "-", "-"}},
		{"key 0, no reservation", 0, we, 0, "5/2600 param 8 bit 7", []uint64{0xA, 0xB, 0xC}, 0, 0, [3]string{"-", "-", "-"}},
		{"the holder", we, we, 0xA, "good", []uint64{0xB, 0xC}, we, 0xB, [3]string{"6/2A05", "-", "-"}},
		{"the holder, with another type", we, weRO, 0xA, "good", []uint64{0xB, 0xC}, weRO, 0xB, [3]string{"6/2A05", "-", "6/2A04"}},
		{"the holder, with no type", we, 2, 0xA, "5/2400 byte 2 bit 3", []uint64{0xA, 0xB, 0xC}, we, 0xA, [3]string{"-", "-", "-"}},
		{"the holder, with a scope", we, 0x11, 0xA, "5/2400 byte 2 bit 7", []uint64{0xA, 0xB, 0xC}, we, 0xA, [3]string{"-", "-", "-"}},
		{"all registrants", weAR, we, 0, "good", []uint64{0xB}, we, 0xB, [3]string{"6/2A05", "-", "6/2A05"}},
		{"all registrants, one of them", weAR, eaAR, 0xA, "good", []uint64{0xB, 0xC}, weAR, 0, [3]string{"6/2A05", "-", "-"}},
		{"all registrants, no such key", weAR, eaAR, 0xD, "conflict", []uint64{0xA, 0xB, 0xC}, weAR, 0, [3]string{"-", "-", "-"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPorts(t, newDisk(64, 512))
			p.register()
			if tt.holds != 0 {
				p.out(portA, "good", actionReserve, tt.holds, 0xA, 0)
			}
			p.out(portB, "conflict", actionPreempt, tt.kind, 0xD, tt.key)
			p.out(portB, tt.want, actionPreempt, tt.kind, 0xB, tt.key)
			p.attentions(tt.told[:]...)
			generation := uint32(3)
			if tt.want == "good" {
				generation++
			}
			p.keys(generation, tt.left...)
			p.held(tt.held, tt.heldKey)
		})
	}
}

// TestPreemptOneself changes the type of a reservation.
func TestPreemptOneself(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.register()
	p.out(portA, "good", actionReserve, writeExclusive, 0xA, 0)
	p.out(portA, "good", actionPreempt, exclusiveAccess, 0xA, 0xA)
	p.attentions("-", "6/2A04", "6/2A04")
	p.held(exclusiveAccess, 0xA)
	p.keys(4, 0xA, 0xB, 0xC)
}

// TestPreemptAllRegistrantsOfOneKey leaves nobody to hold the reservation.
func TestPreemptAllRegistrantsOfOneKey(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.out(portA, "good", actionRegister, 0, 0, 5)
	p.out(portB, "good", actionRegister, 0, 0, 5)
	p.out(portA, "good", actionReserve, exclusiveAccessAll, 5, 0)
	p.out(portA, "good", actionPreempt, exclusiveAccessAll, 5, 5)
	p.attentions("-", "6/2A05", "-")
	p.held(noReservation, 0)
	p.keys(3)
}

// withPorts appends TransportIDs behind their length.
func withPorts(b []byte, ids ...[]byte) []byte {
	all := bytes.Join(ids, nil)
	return append(binary.BigEndian.AppendUint32(bytes.Clone(b), uint32(len(all))), all...)
}

func TestSpecifyPorts(t *testing.T) {
	other := appendTransportID(nil, "iqn.x,i,0x000000000009")
	broken := bytes.Clone(other)
	broken[0] = 0x46
	register := func(p *ports, want string, list []byte) {
		p.Helper()
		p.run(portA, want, fmt.Sprintf("5F 00 00 0000 %08X 00", len(list)), list...)
	}
	list := outList(0, 0xA, specPorts)
	for _, tt := range []struct {
		name, want string
		list       []byte
		keys       int
	}{
		{"one more", "good", withPorts(list, other), 2},
		{"none more", "good", withPorts(list), 1},
		{"itself, and one twice", "good", withPorts(list, appendTransportID(nil, portNames[portA]), other, other), 2},
		{"a node's ports", "good", withPorts(list, id(0, "iqn.a", 20)), 2},
		{"a node that is not there", "good", withPorts(list, id(0, "iqn.z", 20)), 1},
		{"of another protocol", "5/2600 param 56 bit 7", withPorts(list, other, broken), 0},
		{"no length", "5/1A00", list, 0},
		{"more than the length says", "5/1A00", append(withPorts(list, other), 0, 0, 0, 0), 0},
		{"less than the length says", "5/1A00", withPorts(list, other)[:40], 0},
		{"key 0", "5/2600 param 20 bit 3", withPorts(outList(0, 0, specPorts), other), 0},
		{"wrong key", "conflict", withPorts(outList(1, 1, specPorts), other), 0},
		{"registered already", "conflict", withPorts(list, other, appendTransportID(nil, portNames[portC])), -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPorts(t, newDisk(64, 512))
			if tt.keys < 0 {
				p.out(portC, "good", actionRegister, 0, 0, 0xC)
			}
			register(p, tt.want, tt.list)
			if got := len(p.unit.reservations.Load().registrations); got != max(tt.keys, -tt.keys) {
				t.Errorf("%d registrations", got)
			}
			for n := range tt.list {
				if tt.want != "good" {
					break
				}
				fresh := newPorts(t, newDisk(64, 512))
				register(fresh, "5/1A00", tt.list[:n])
			}
		})
	}
	p := newPorts(t, newDisk(64, 512))
	register(p, "good", withPorts(list, other))
	register(p, "5/2600 param 20 bit 3", withPorts(outList(0xA, 1, specPorts), other)) // only to register anew
}

func TestResources(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	var ids [][]byte
	for i := range maxRegistrations {
		ids = append(ids, appendTransportID(nil, fmt.Sprintf("iqn.x,i,0x%012x", i)))
	}
	register := func(want string, ids ...[]byte) {
		list := withPorts(outList(0, 1, specPorts), ids...)
		p.run(portA, want, fmt.Sprintf("5F 00 00 0000 %08X 00", len(list)), list...)
	}
	register("5/5504", ids...)
	p.keys(0)
	register("good", ids[1:]...)
	p.out(portB, "5/5504", actionRegister, 0, 0, 1)
	p.out(portA, "good", actionReserve, writeExclusive, 1, 0)
	p.move(portA, "5/5504", moveList(1, 2, 0, 1), appendTransportID(nil, portNames[portB]))
	if got := len(p.unit.reservations.Load().registrations); got != maxRegistrations {
		t.Errorf("%d registrations", got)
	}
}

// moveList is the list of REGISTER AND MOVE without the length and the
// TransportID.
func moveList(key, serviceKey uint64, flags byte, targetPort uint16) []byte {
	b := binary.BigEndian.AppendUint64(nil, key)
	b = binary.BigEndian.AppendUint64(b, serviceKey)
	return binary.BigEndian.AppendUint16(append(b, 0, flags), targetPort)
}

func (p *ports) move(who int, want string, list []byte, ids ...[]byte) {
	p.Helper()
	list = withPorts(list, ids...)
	p.run(who, want, fmt.Sprintf("5F 07 00 0000 %08X 00", len(list)), list...)
}

func TestRegisterAndMove(t *testing.T) {
	const unreg, persist = 1 << 1, 1 << 0
	toA, toB, toC := appendTransportID(nil, portNames[portA]), appendTransportID(nil, portNames[portB]), appendTransportID(nil, portNames[portC])
	t.Run("to a port that is not registered", func(t *testing.T) {
		p := newPorts(t, newDisk(64, 512))
		p.out(portA, "good", actionRegister, 0, 0, 0xA)
		p.out(portA, "good", actionReserve, exclusiveAccess, 0xA, 0)
		p.move(portA, "good", moveList(0xA, 0xC, 0, 1), toC)
		p.keys(2, 0xA, 0xC)
		p.held(exclusiveAccess, 0xC)
		p.run(portA, "conflict", read)
		p.run(portC, "good", ready)
		p.attentions("-", "-", "-")
	})
	t.Run("to one that is, and away", func(t *testing.T) {
		p := newPorts(t, newDisk(64, 512))
		p.register()
		p.out(portA, "good", actionReserve, writeExclusiveRegistrants, 0xA, 0)
		p.move(portA, "good", moveList(0xA, 0xBB, unreg, 1), toB)
		p.keys(4, 0xBB, 0xC)
		p.held(writeExclusiveRegistrants, 0xBB)
		p.attentions("-", "-", "-")
	})
	for _, tt := range []struct {
		name, want string
		kind       reservationType
		who        int
		list       []byte
		ids        [][]byte
	}{
		{"wrong key", "conflict", writeExclusive, portA, moveList(1, 0xC, 0, 1), [][]byte{toC}},
		{"no reservation", "5/2400 byte 1 bit 4", 0, portA, moveList(0xA, 0xC, 0, 1), [][]byte{toC}},
		{"another's reservation", "conflict", writeExclusive, portB, moveList(0xB, 0xC, 0, 1), [][]byte{toC}},
		{"all registrants", "conflict", writeExclusiveAll, portA, moveList(0xA, 0xC, 0, 1), [][]byte{toC}},
		{"key 0", "5/2600 param 8 bit 7", writeExclusive, portA, moveList(0xA, 0, 0, 1), [][]byte{toC}},
		{"APTPL", "5/2600 param 17 bit 0", writeExclusive, portA, moveList(0xA, 1, persist, 1), [][]byte{toC}},
		{"another target port", "5/2600 param 18 bit 7", writeExclusive, portA, moveList(0xA, 1, 0, 2), [][]byte{toC}},
		{"to itself", "5/2600 param 24 bit 7", writeExclusive, portA, moveList(0xA, 1, 0, 1), [][]byte{toA}},
		{"to nobody", "5/2600 param 24 bit 7", writeExclusive, portA, moveList(0xA, 1, 0, 1), nil},
		{"to two", "5/2600 param 24 bit 7", writeExclusive, portA, moveList(0xA, 1, 0, 1), [][]byte{toB, toC}},
		{"to a node", "5/2600 param 24 bit 7", writeExclusive, portA, moveList(0xA, 1, 0, 1), [][]byte{id(0, nameA, 28)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPorts(t, newDisk(64, 512))
			p.register()
			if tt.kind != noReservation {
				p.out(portA, "good", actionReserve, tt.kind, 0xA, 0)
			}
			before := p.unit.reservations.Load()
			p.move(tt.who, tt.want, tt.list, tt.ids...)
			if p.unit.reservations.Load() != before {
				t.Error("something has changed")
			}
			whole := withPorts(tt.list, tt.ids...)
			for n := range whole {
				p.run(tt.who, "5/1A00", fmt.Sprintf("5F 07 00 0000 %08X 00", n), whole[:n]...)
			}
		})
	}
}

// TestReserveOutUnderReservation is SPC-4's table of the service actions that are
// allowed in the presence of various reservations.
func TestReserveOutUnderReservation(t *testing.T) {
	for _, kind := range reservationTypes {
		for _, tt := range []struct {
			action             byte
			registered, others string
		}{
			{actionRegister, "good", "good"},
			{actionRegisterIgnore, "good", "good"},
			{actionClear, "good", "conflict"},
			{actionPreempt, "good", "conflict"},
			{actionPreemptAndAbort, "good", "conflict"},
			{actionRelease, "good", "conflict"},
			{actionReserve, map[bool]string{true: "good", false: "conflict"}[kind.heldByAll()], "conflict"},
		} {
			p := newPorts(t, newDisk(64, 512))
			p.out(portA, "good", actionRegister, 0, 0, 0xA)
			p.out(portB, "good", actionRegister, 0, 0, 0xB)
			p.out(portA, "good", actionReserve, kind, 0xA, 0)
			p.out(portC, tt.others, tt.action, kind, 0, 0xA)
			p.out(portB, tt.registered, tt.action, kind, 0xB, 0xA)
		}
	}
}
