package scsi

import (
	"encoding/hex"
	"testing"
)

// idA and the two below it are TransportIDs of the rig's ports.
func idOf(who int) string { return hex.EncodeToString(appendTransportID(nil, portNames[who])) }

func TestReserveInEmpty(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.reads(portA, "5E 00 00 00000000 0100 00", "00000000 00000000")
	p.reads(portA, "5E 01 00 00000000 0100 00", "00000000 00000000")
	p.reads(portA, "5E 02 00 00000000 0100 00", "0008 1C B0 EA01 0000")
	p.reads(portA, "5E 03 00 00000000 0100 00", "00000000 00000000")
	for action := 4; action < 32; action++ {
		p.run(portA, "5/2400 byte 1 bit 4", hex.EncodeToString([]byte{0x5E, byte(action), 0, 0, 0, 0, 0, 1, 0, 0}))
	}
}

// TestReserveInCut: the data is cut to the allocation length, and what it says of
// its length is not.
func TestReserveInCut(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.register()
	p.out(portA, "good", actionReserve, writeExclusive, 0xA, 0)
	for _, action := range []string{"00", "01", "02", "03"} {
		whole, _ := run(t, p.nexuses[portA], "5E "+action+" 00 00000000 FFFF 00", nil)
		for n := range whole {
			p.reads(portA, "5E "+action+" 00 00000000 "+hex.EncodeToString([]byte{byte(n >> 8), byte(n)})+" 00", hex.EncodeToString(whole[:n]))
		}
	}
}

func TestReadFullStatus(t *testing.T) {
	p := newPorts(t, newDisk(64, 512))
	p.out(portA, "good", actionRegister, 0, 0, 0x0102030405060708)
	p.out(portC, "good", actionRegister, 0, 0, 0xC, allPorts)
	p.out(portA, "good", actionReserve, exclusiveAccess, 0x0102030405060708, 0)
	const (
		a = "0102030405060708 00000000 01 03 00000000 0001 0000001C"
		c = "000000000000000C 00000000 02 00 00000000 0000 0000001C"
	)
	p.reads(portB, "5E 03 00 00000000 0100 00", "00000002 00000068"+a+idOf(portA)+c+idOf(portC))
	p.out(portA, "good", actionRelease, exclusiveAccess, 0x0102030405060708, 0)
	p.out(portC, "good", actionReserve, writeExclusiveAll, 0xC, 0)
	p.reads(portB, "5E 03 00 00000000 0100 00", "00000002 00000068"+
		"0102030405060708 00000000 01 07 00000000 0001 0000001C"+idOf(portA)+
		"000000000000000C 00000000 03 07 00000000 0000 0000001C"+idOf(portC))
	p.held(writeExclusiveAll, 0) // all hold it: no key
}

// TestReportCapabilities: PTPL_C where a state can be kept, PTPL_A while it is.
func TestReportCapabilities(t *testing.T) {
	p := newPorts(t, newKeeper())
	const off, on = "0008 1D B0 EA01 0000", "0008 1D B1 EA01 0000"
	p.reads(portA, "5E 02 00 00000000 0008 00", off)
	p.out(portA, "good", actionRegister, 0, 0, 1, aptpl)
	p.reads(portA, "5E 02 00 00000000 0008 00", on)
	p.out(portA, "good", actionRegister, 0, 1, 1)
	p.reads(portA, "5E 02 00 00000000 0008 00", off)
}
