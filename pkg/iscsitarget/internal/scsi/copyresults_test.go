package scsi

import (
	"context"
	"fmt"
	"testing"
)

func resultsCDB(action, id byte) string {
	return fmt.Sprintf("84 %02X %02X 00000000000000 00001000 00 00", action, id)
}

func results4CDB(opcode, action byte, id uint32, allocation int) string {
	return fmt.Sprintf("%02X %02X %08X 00000000 %08X 00 00", opcode, action, id, allocation)
}

func TestCopyOperatingParameters(t *testing.T) {
	want := func(granularity string) string {
		return `0000002A 01 000000 0040 0040 00000F00 04000000 00000000 00000000 00000000 0000
			0010 10 ` + granularity + ` 00 00 000000 02 02E4`
	}
	newRig(t, newDisk(64, 512)).golden("84 03 0000000000000000 00001000 00 00", want("09"))
	r := newRig(t, newDisk(64, 4096))
	r.golden("84 03 0000000000000000 00001000 00 00", want("0C"))
	data, _ := r.do("84 03 0000000000000000 00001000 00 00")
	if len(data) != 46 {
		t.Errorf("%d bytes", len(data))
	}
	if data, _ := r.do("84 03 0000000000000000 00000008 00 00"); len(data) != 8 {
		t.Errorf("%d bytes, not cut to the allocation length", len(data))
	}
}

func TestCopyResultsOfUnknownLists(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	for _, action := range []byte{0x00, 0x01, 0x04} {
		r.expect("5/2400 byte 2 bit 7", resultsCDB(action, 7))
	}
	r.expect("5/2400 byte 2 bit 7", results4CDB(0x84, 0x05, 7, 4096))
	r.expect("5/2400 byte 2 bit 7", results4CDB(0x83, 0x1C, 7, 0))
	r.expect("5/2400 byte 1 bit 4", resultsCDB(0x02, 7))
}

func TestCopyResults(t *testing.T) {
	good := list1(7, 0, nil, joined(blockToBlock(0, 0xFFFF, 0xFFFF, 5, 2, 9), blockToBlock(0, 0xFFFF, 0xFFFF, 3, 0, 60)))
	bad := list1(7, 0x10, nil, joined(blockToBlock(0, 0xFFFF, 0xFFFF, 5, 2, 9), blockToBlock(0, 0xFFFF, 0xFFFF, 3, 0, 62)))
	r := newRig(t, newDisk(64, 512))
	r.expect("good", copyCDB(0, len(good)), good...)
	for range 2 { // asking changes nothing
		r.golden(resultsCDB(0x00, 7), "00000008 01 0002 00 00001000")
		r.golden(resultsCDB(0x01, 7), "00000000")
		r.golden(results4CDB(0x84, 0x05, 7, 4096), "0000001C 00 01 0000 FFFFFFFF 00 00 00 00 0000000000001000 0002 000000000000")
	}
	if data, _ := r.do(results4CDB(0x84, 0x05, 7, 10)); len(data) != 10 {
		t.Errorf("%d bytes, not cut to the allocation length", len(data))
	}
	r.golden(resultsCDB(0x04, 7), "00000000")
	r.expect("5/2400 byte 2 bit 7", resultsCDB(0x04, 7))

	r.expect("A/0D02", copyCDB(0, len(bad)), bad...)
	r.golden(resultsCDB(0x00, 7), "00000008 02 0001 00 00000A00")
	sense := "70000A000000000A000000000D0200000000"
	r.golden(results4CDB(0x84, 0x05, 7, 4096),
		"0000002E 00 02 0000 FFFFFFFF 02 12 12 00 0000000000000A00 0001 000000000000"+sense)
	details := "0000004A" + fmt.Sprintf("%0104X", 0) + "02 00 0012" + sense
	r.golden("84 04 07 00000000000000 00000010 00 00", details[:32]) // read in part: still there
	r.golden(resultsCDB(0x04, 7), details)
	r.expect("5/2400 byte 2 bit 7", resultsCDB(0x04, 7))
}

func TestCopyStatusBelongsToNexusAndUnit(t *testing.T) {
	r := newCopyRig(t, newDisk(64, 512), newDisk(64, 512))
	list := list1(7, 0, nil, blockToBlock(0, 0xFFFF, 0xFFFF, 5, 2, 9))
	r.expect("good", copyCDB(0, len(list)), list...)
	if _, st := r.doOn(1, resultsCDB(0x00, 7)); text(st) != "5/2400 byte 2 bit 7" {
		t.Errorf("another unit: %s", text(st))
	}
	other := r.attach(NexusConfig{InitiatorPort: "iqn.j,i,0x1"})
	if _, st := run(t, other, resultsCDB(0x00, 7), nil); text(st) != "5/2400 byte 2 bit 7" {
		t.Errorf("another nexus: %s", text(st))
	}
	r.unit.Reset()
	r.expect("6/2903", "00")
	r.expect("5/2400 byte 2 bit 7", resultsCDB(0x00, 7))
}

func TestCopyListIdentifiers(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	segment := blockToBlock(0, 0xFFFF, 0xFFFF, 5, 2, 9)
	list := list1(0, 3<<3, nil, segment)
	r.expect("good", copyCDB(0, len(list)), list...)
	r.expect("5/2400 byte 2 bit 7", resultsCDB(0x00, 0)) // it had none
	for id := range byte(maxCopies + 1) {
		list := list1(id, 0, nil, segment)
		r.expect("good", copyCDB(0, len(list)), list...)
		r.expect("good", copyCDB(0, len(list)), list...) // an id comes again
	}
	r.expect("5/2400 byte 2 bit 7", resultsCDB(0x00, 0)) // the oldest made room
	r.golden(resultsCDB(0x00, 1), "00000008 01 0001 00 00000A00")
}

// A copy under way can be asked for, keeps its list identifier to itself and ends
// when it is told to.
func TestCopyOperationAbort(t *testing.T) {
	d := newDisk(1500, 512)
	r := newRig(t, d)
	entered, leave := make(chan struct{}), make(chan struct{})
	d.writing = func() { entered <- struct{}{}; <-leave }
	list := list4(0x01020304, 0, nil, blockToBlock(0, 0xFFFF, 0xFFFF, 700, 0, 800))
	c := r.nexus.Decode([8]byte{}, Simple, parse(t, copyCDB(1, len(list))))
	ended := make(chan Status)
	go func() {
		_, st := c.Execute(context.Background(), list)
		ended <- st
	}()
	<-entered
	r.golden(results4CDB(0x84, 0x05, 0x01020304, 4096), "0000001C 01 11 0000 FFFFFFFF 00 00 00 00 0000000000000000 0000 000000000000")
	r.expect("5/0016", copyCDB(1, len(list)), list...)
	r.expect("good", results4CDB(0x83, 0x1C, 0x01020304, 0))
	close(leave)
	if st := <-ended; st != StatusTaskAborted {
		t.Error(text(st))
	}
	r.golden(results4CDB(0x84, 0x05, 0x01020304, 4096), "0000001C 01 60 0001 FFFFFFFF 40 00 00 00 0000000000040000 0000 000000000000")
	r.expect("5/2400 byte 2 bit 7", results4CDB(0x83, 0x1C, 0x01020304, 0))
}

func TestCopiesAtOnceAreBounded(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	copies := &(*r.nexus.luns.Load())[0].copies
	for id := range uint32(maxCopies) {
		if st := copies.begin(&copyOperation{id: id, named: true}); st.code != Good {
			t.Fatal(text(st))
		}
	}
	list := list1(99, 0, nil, blockToBlock(0, 0xFFFF, 0xFFFF, 5, 2, 9))
	r.expect("busy", copyCDB(0, len(list)), list...)
	list = list1(0, 3<<3, nil, blockToBlock(0, 0xFFFF, 0xFFFF, 5, 2, 9))
	r.expect("busy", copyCDB(0, len(list)), list...)
	r.expect("5/2400 byte 2 bit 7", resultsCDB(0x01, 3)) // in progress
	r.expect("5/2400 byte 2 bit 7", resultsCDB(0x04, 3))
	r.golden(resultsCDB(0x00, 3), "00000008 00 0000 00 00000000")
}

func TestTransferCountUnits(t *testing.T) {
	for _, x := range []struct {
		bytes int64
		units byte
		count uint32
	}{{0, 0, 0}, {1<<32 - 1, 0, 1<<32 - 1}, {1 << 32, 1, 1 << 22}, {1 << 50, 2, 1 << 30}} {
		if units, count := (copyState{bytes: x.bytes}).transferCount1(); units != x.units || count != x.count {
			t.Errorf("%d bytes: %d in units of %d", x.bytes, count, units)
		}
	}
}
