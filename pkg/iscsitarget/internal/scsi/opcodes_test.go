package scsi

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

func TestReportOpcodes(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	r.golden("A3 0C 01 28 0000 00000100 00 00", "00 03 000A 28 F8 FFFFFFFF 00 FFFF 04")
	r.golden("A3 0C 81 28 0000 00000100 00 00", "00 83 000A 28 F8 FFFFFFFF 00 FFFF 04 000A")
	r.golden("A3 0C 02 9E 0010 00000100 00 00", "00 03 0010 9E 10 0000000000000000 FFFFFFFF 00 04")
	r.golden("A3 0C 03 28 0000 00000100 00 00", "00 03 000A 28 F8 FFFFFFFF 00 FFFF 04")
	r.golden("A3 0C 03 9E 0010 00000100 00 00", "00 03 0010 9E 10 0000000000000000 FFFFFFFF 00 04")
	for _, absent := range []string{"01 42 0000", "01 FF 0000", "02 9E 0012", "02 9E 0000", "02 9E FFFF", "02 FF 0000", "03 28 0001", "03 FF 0000"} {
		r.golden("A3 0C "+absent+" 00000100 00 00", "00 01 0000")
	}
	r.expect("5/2400 byte 2 bit 2", "A3 0C 01 9E 0010 00000100 00 00")
	r.expect("5/2400 byte 2 bit 2", "A3 0C 02 28 0000 00000100 00 00")
	r.expect("5/2400 byte 2 bit 2", "A3 0C 04 28 0000 00000100 00 00")
	r.golden("A3 0C 01 28 0000 00000003 00 00", "00 03 00")
	thin := newRig(t, mappedDisk{thinDisk{newDisk(64, 512)}})
	thin.golden("A3 0C 01 42 0000 00000100 00 00", "00 03 000A 42 01 00000000 00 FFFF 04")
	thin.golden("A3 0C 02 9E 0012 00000100 00 00", "00 03 0010 9E 12 FFFFFFFFFFFFFFFF FFFFFFFF 00 04")
}

// TestReportAllOpcodes: each command of the unit is there once, and is answered.
func TestReportAllOpcodes(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	for _, x := range []struct {
		cdb  string
		size int
		flag byte
	}{{"A3 0C 00 00 0000 00100000 00 00", 8, 0}, {"A3 0C 80 00 0000 00100000 00 00", 20, 2}} {
		b, st := r.do(x.cdb)
		if st.code != Good || int(binary.BigEndian.Uint32(b)) != len(b)-4 || (len(b)-4)%x.size != 0 {
			t.Fatalf("%s: %s, %d bytes", x.cdb, text(st), len(b))
		}
		offered := 0
		for i := range commandSet {
			if commandSet[i].in(r.unit) {
				offered++
			}
		}
		if n := (len(b) - 4) / x.size; n != offered {
			t.Errorf("%d commands of %d", n, offered)
		}
		for d := range bytesOf(b[4:], x.size) {
			if d[5]&2 != x.flag {
				t.Errorf("%x: CTDP", d)
			}
			cdb := make([]byte, 16)
			cdb[0] = d[0]
			if d[5]&1 != 0 {
				cdb[1] = d[3]
			}
			if c := r.nexus.Decode([8]byte{}, Simple, cdb); c.op.unknown || len(c.op.cdbUsage()) != int(d[7]) {
				t.Errorf("%x is reported and not answered so", d)
			}
		}
	}
}

func bytesOf(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) >= n && yield(b[:n]) {
			b = b[n:]
		}
	}
}

func TestReportManagement(t *testing.T) {
	r := newLonelyRig(t, newDisk(64, 512))
	r.nexus = r.attach(NexusConfig{Functions: DoesAbortTask | DoesAbortTaskSet | DoesClearTaskSet | DoesLogicalUnitReset | DoesNexusReset})
	r.golden("A3 0D 00 00 0000 00000100 00 00", "D8 01 00 00")
	r.golden("A3 0D 80 00 0000 00000100 00 00", "D8 01 00 0C 00000000 00000000 00000000")
	r.expect("5/2400 byte 6 bit 7", "A3 0D 00 00 0000 00000003 00 00")
}

func TestSmallCommands(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d)
	before := bytes.Clone(d.now)
	r.golden("37 00 1D 00000000 0100 00", "00 1D 0000")
	r.golden("37 00 08 00000000 0002 00", "00 08")
	r.golden("B7 11 00000000 00000100 00 00", "00 11 0000 00000000")
	r.expect("good", "1E 00 0000 01 00")
	r.expect("good", "1E 00 0000 00 00")
	r.expect("5/2400 byte 4 bit 1", "1E 00 0000 02 00")
	r.expect("good", "34 00 00000005 00 0003 00")
	r.expect("good", "34 02 0000003F 00 0000 00")
	r.expect("5/2100", "34 00 0000003F 00 0002 00")
	r.expect("good", "90 00 0000000000000005 00000003 00 00")
	r.expect("5/2100", "90 00 FFFFFFFFFFFFFFFF 00000003 00 00")
	holds(t, d, before, 0, nil)
}

// reader remembers where it was read.
type reader struct {
	*disk
	reads []int64
}

func (d *reader) ReadAt(p []byte, off int64) (int, error) {
	d.reads = append(d.reads, off)
	return d.disk.ReadAt(p, off)
}

func TestSendDiagnostic(t *testing.T) {
	d := &reader{disk: newDisk(64, 4096)}
	r := newRig(t, d)
	for _, cdb := range []string{"1D 04 00 0000 00", "1D 14 00 0000 00", "1D A0 00 0000 00"} {
		d.reads = nil
		r.expect("good", cdb)
		if want := []int64{0, 63 * 4096}; !slices.Equal(d.reads, want) {
			t.Errorf("%s read at %v, want %v", cdb, d.reads, want)
		}
	}
	r.expect("good", "1D 10 00 0000 00")
	r.expect("5/2400 byte 1 bit 7", "1D 24 00 0000 00") // a code beside SELFTEST
	for _, code := range []string{"20", "40", "60", "80", "C0", "E0"} {
		r.expect("5/2400 byte 1 bit 7", "1D "+code+" 00 0000 00")
	}
	r.expect("5/2400 byte 3 bit 7", "1D 10 00 0004 00", 0, 0, 0, 0)
	d.readErr = errDisk
	r.expect("4/3E03", "1D 04 00 0000 00")
}
