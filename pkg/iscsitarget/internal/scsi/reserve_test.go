package scsi

import "testing"

// TestReserve is SPC-2's RESERVE and RELEASE.
func TestReserve(t *testing.T) {
	for _, x := range []struct{ reserve, release string }{
		{"16 00 00 00 00 00", "17 00 00 00 00 00"},
		{"56 00 00 000000 000000 00", "57 00 00 000000 000000 00"},
	} {
		p := newPorts(t, newDisk(64, 512))
		p.run(portA, "good", x.release) // no error
		p.run(portA, "good", x.reserve)
		p.run(portA, "good", x.reserve)
		p.run(portB, "conflict", x.reserve)
		p.run(portB, "conflict", ready)
		p.run(portB, "good", x.release) // without effect
		p.run(portB, "conflict", ready)
		p.run(portA, "good", ready)
		p.run(portA, "good", x.release)
		p.run(portB, "good", ready)
		p.run(portB, "good", x.reserve)
		p.run(portA, "conflict", x.reserve)
		p.attentions("-", "-", "-")
	}
}

// TestReserveForAnother: third-party reservations are refused.
func TestReserveForAnother(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.run(portA, "5/2400 byte 1 bit 4", "56 10")
	p.run(portA, "5/2400 byte 1 bit 4", "57 10")
	p.run(portB, "good", ready)
}

// TestReserveEnds with the nexus and with a reset.
func TestReserveEnds(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.run(portA, "good", "16")
	p.nexuses[portB].Detach() // somebody else's
	p.run(portC, "conflict", ready)
	p.nexuses[portA].Detach()
	p.run(portC, "good", ready)
	p.run(portC, "good", "16")
	p.login(portA)
	p.run(portA, "conflict", ready)
	p.unit.Reset()
	p.run(portA, "6/2903", ready)
	p.run(portA, "good", ready)
	p.run(portA, "good", "16")
}

// TestReserveAndPersistent: RESERVE shuts persistent reservations out, for its
// holder too, and registrations shut RESERVE out, but for whom a persistent
// reservation lets through (CRH).
func TestReserveAndPersistent(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.run(portA, "good", "16")
	for _, who := range []int{portA, portB} {
		for _, in := range []string{"5E 00", "5E 01", "5E 02", "5E 03"} {
			p.run(who, "conflict", in)
		}
		p.out(who, "conflict", actionRegister, 0, 0, 1)
	}
	p.run(portA, "good", "17")
	for _, x := range []struct {
		kind                reservationType
		holder, other, none string
	}{
		{noReservation, "conflict", "conflict", "conflict"},
		{writeExclusive, "good", "conflict", "conflict"},
		{exclusiveAccess, "good", "conflict", "conflict"},
		{writeExclusiveRegistrants, "good", "good", "conflict"},
		{exclusiveAccessAll, "good", "good", "conflict"},
	} {
		p := newPorts(t, newDisk(64, 512))
		p.out(portA, "good", actionRegister, 0, 0, 0xA)
		p.out(portB, "good", actionRegister, 0, 0, 0xB)
		if x.kind != noReservation {
			p.out(portA, "good", actionReserve, x.kind, 0xA, 0)
		}
		for _, cdb := range []string{"16", "17", "56", "57"} {
			p.run(portA, x.holder, cdb)
			p.run(portB, x.other, cdb)
			p.run(portC, x.none, cdb)
		}
		if p.unit.reservations.Load().reserver != nil {
			t.Errorf("type %d: RESERVE had an effect", x.kind)
		}
	}
}
