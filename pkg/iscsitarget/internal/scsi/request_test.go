package scsi

import (
	"bytes"
	"context"
	"testing"
)

func TestUnknown(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	for _, cdb := range []string{"FF", "01", "7F 04 00 00 00 00 00 18", "7E", "C0", "FF 04 04 04 04 04 04", "1C", "5D"} {
		r.expect("5/2000", cdb)
	}
	r.expect("5/2400 byte 1 bit 4", "9E 00")
	r.expect("5/2400 byte 1 bit 4", "A3 1F")
	r.expect("5/2400 byte 1 bit 4", "9E 1F 00 00 00 00 00 00 00 00 00 00 00 00 00 04")
	for _, lun := range [][8]byte{{0, 1}, {0x40, 1}, {0xC1, 1}, {1, 0}} {
		for _, cdb := range []string{"00", "28 00 00000000 00 0001 00", "FF", "9E 10", "35"} {
			if c := r.nexus.Decode(lun, Simple, parse(t, cdb)); c.Kind != Done || text(c.Status) != "5/2500" {
				t.Errorf("LUN %x: %s: %s", lun, cdb, text(c.Status))
			}
		}
	}
}

func TestCommandSetIsWhole(t *testing.T) {
	seen := map[[2]int]bool{}
	for _, op := range commandSet {
		key := [2]int{int(op.opcode), op.action}
		if seen[key] || op.name == "" || op.decode == nil || op.unknown {
			t.Errorf("row %s (%#x)", op.name, op.opcode)
		}
		seen[key] = true
		if layouts[op.opcode>>5].control == 0 {
			t.Errorf("%s has no layout", op.name)
		}
		if length := map[byte]int{0: 6, 1: 10, 2: 10, 4: 16, 5: 12}[op.opcode>>5]; len(op.cdbUsage()) != length {
			t.Errorf("%s has usage data of %d bytes", op.name, len(op.cdbUsage()))
		}
		if op.access >= readsMedium && op.passes || op.access > noAccess && op.anyLUN {
			t.Errorf("%s touches a medium that may not be there", op.name)
		}
	}
}

func TestExecuteOnlyExec(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	for _, cdb := range []string{"00", "28 00 00000000 00 0001 00", "FF"} {
		c := r.nexus.Decode([8]byte{}, Simple, parse(t, cdb))
		if data, st := c.Execute(t.Context(), nil); text(st) != "4/4400" || data != nil {
			t.Errorf("%s: %s", cdb, text(st))
		}
	}
}

// cdbs are commands that real initiators send, one of each row at least.
var cdbs = []string{
	"00", "03 00 00 00 FC 00", "08 00 00 05 02 00", "0A 00 00 05 02 00", "12 00 00 00 24 00", "12 01 83 00 FF 00", "12 01 B0 00 40 00",
	"1A 00 3F 00 04 00", "1B 00 00 00 01 00", "25", "28 00 00000005 00 0002 00", "2A 08 00000005 00 0002 00",
	"2E 02 00000007 00 0003 00", "2F 02 00000004 00 0005 00", "2F 06 00000004 00 0005 00", "35 00 00000000 00 0000 00",
	"41 08 00000004 00 0003 00", "42 00 00000000 00 0018 00", "5A 10 3F FF 000000 00FF 00", "88 08 0000000000000009 00000001 00 00",
	"8A 08 0000000000000009 00000001 00 00", "8E 02 0000000000000007 00000003 00 00", "8F 00 0000000000000004 00000005 00 00",
	"91 00 0000000000000000 00000000 00 00", "93 09 0000000000000001 00000003 00 00", "9E 10 0000000000000000 00000020 00 00",
	"A0 00 00 000000 00000100 00 00", "A8 00 00000005 00000003 00 00", "AA 00 00000005 00000003 00 00",
	"AE 02 00000007 00000003 00 00", "AF 02 00000004 00000005 00 00", "7F 04 00 00 00 00 00 18",
	"9E 12 0000000000000003 00000100 00 00", "04 00 00 00 00 00", "04 10 00 00 00 00", "48 01 0000000000 0008 00", "48 02 0000000000 0000 00",
	"48 1F 0000000000 0000 00", "15 10 0000 18 00", "55 11 0000000000 0020 00", "1E 00 0000 01 00", "34 00 00000005 00 0003 00",
	"90 00 0000000000000005 00000003 00 00", "37 00 18 00000000 0100 00", "B7 18 00000000 00000100 00 00",
	"9C 08 0000000000000008 0000 0008 00 00", "89 00 0000000000000005 000000 02 00 00", "8B 00 0000000000000005 00000002 00 00", "A3 0C 00 0000 00000400 00 00",
	"A3 0C 01 2A00 00000400 00 00", "A3 0D 80 0000 00000400 00 00", "A3 0F 00000000 00000400 00 00", "A4 0F 00000000 0000000C 00 00",
	"A3 0A 00000000 00000400 00 00", "A4 0A 00000000 00000008 00 00",
	"4D 00 40 00 00 0000 0400 00", "4D 00 4C 00 00 0000 0400 00",
	"16", "17", "56", "57", "5E 00 00 00000000 0100 00", "5E 01 00 00000000 0100 00", "5E 02 00 00000000 0100 00", "5E 03 00 00000000 0100 00",
	"5F 00 00 0000 00000018 00", "5F 06 00 0000 00000018 00", "5F 01 03 0000 00000018 00", "5F 07 00 0000 00000034 00",
	"83 00 0000000000000000 0000004C 00 00", "83 01 0000000000000000 0000006C 00 00", "83 10 00000000 00000001 00000020 00 00",
	"83 11 00000000 00000001 00000228 00 00", "83 1C 00000001", "84 00 01 00000000000000 00001000 00 00",
	"84 01 01 00000000000000 00001000 00 00", "84 03 0000000000000000 00001000 00 00", "84 04 01 00000000000000 00001000 00 00",
	"84 05 00000001 00000000 00001000 00 00", "84 07 00000001 00000000 00001000 00 00", "84 08 0000000000000000 00001000 00 00",
}

func FuzzDecode(f *testing.F) {
	for _, cdb := range cdbs {
		f.Add(make([]byte, 8), parse(f, cdb))
	}
	r := newRig(f, thinDisk{newDisk(64, 512)})
	f.Fuzz(func(t *testing.T, lun, cdb []byte) {
		checkCommand(t, r.nexus.Decode([8]byte(append(lun, make([]byte, 8)...)), Simple, cdb))
	})
}

// checkCommand asks what the layer above relies on.
func checkCommand(t *testing.T, c Command) {
	t.Helper()
	switch c.Kind {
	case Done:
		if c.Length != int64(len(c.Data)) || c.Length > 0 && (c.Status.code != Good || c.Dir != DataIn) {
			t.Errorf("Done: %+v", c)
		}
	case Exec:
		if c.Length > MaxParameterLength || c.Length > 0 && c.Dir == NoData {
			t.Errorf("Exec: %+v", c)
		}
	case Read, Write:
		if c.Length <= 0 || c.Length > maxTransferBytes || c.offset < 0 || c.offset+c.Length > c.itl.unit.device.Size() ||
			(c.Kind == Read) != (c.Dir == DataIn) {
			t.Errorf("Read or Write: %+v", c)
		}
	}
	if n := len(c.Status.AppendSense(nil)); n > 252 || (n > 0) != (c.Status.code == CheckCondition) {
		t.Errorf("%d bytes of sense data", n)
	}
}

// FuzzExecuteParams runs every kind of command with any parameter data and
// checks that only what the CDB names changes.
func FuzzExecuteParams(f *testing.F) {
	for _, cdb := range cdbs {
		f.Add(parse(f, cdb), unmapParams(3, 2, 60, 4))
		f.Add(parse(f, cdb), make([]byte, 2048))
	}
	f.Fuzz(func(t *testing.T, cdb, params []byte) {
		d := newDisk(64, 512)
		before := bytes.Clone(d.now)
		r := newRig(t, thinDisk{d})
		defer func() { _ = r.unit.Close() }()
		c := r.nexus.Decode([8]byte{}, Simple, cdb)
		checkCommand(t, c)
		if c.Kind == Write {
			params = append(params, make([]byte, c.Length)...)
		}
		data, st := perform(c, params)
		if len(data) > 1<<16 && c.Kind != Read {
			t.Errorf("%d bytes of data", len(data))
		}
		if c.op.passesChore {
			return // all of the medium changes, perhaps later
		}
		if c.op.access != writesMedium && c.op.opcode != 0x83 && !bytes.Equal(d.now, before) {
			t.Errorf("%s changed the medium (%s)", c.op.name, text(st))
		}
		if c.Kind != Exec || c.op.opcode == 0x42 || c.op.opcode == 0x83 { // their list names the range
			return
		}
		copy(before[c.offset:c.offset+c.span], d.now[c.offset:])
		if !bytes.Equal(d.now, before) {
			t.Errorf("%s wrote outside its range", c.op.name)
		}
	})
}

func TestDecodeTakesAnyLength(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	for n := range 64 {
		for op := range 256 {
			cdb := bytes.Repeat([]byte{0xFF}, n)
			if n > 0 {
				cdb[0] = byte(op)
			}
			c := r.nexus.Decode([8]byte{}, Simple, cdb)
			checkCommand(t, c)
			if c.Kind == Exec {
				c.Execute(context.Background(), nil)
				r.unit.chores.stop()
			}
		}
	}
}
