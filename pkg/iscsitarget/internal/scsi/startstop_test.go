package scsi

import (
	"bytes"
	"testing"
)

func TestStopAndStart(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, thinDisk{d})
	r.expect("good", "2A 00 00000000 00 0001 00", pattern(512)...)
	r.expect("good", "1B 01 00 00 00 00")
	if !bytes.Equal(d.now, d.stable) {
		t.Error("stopped with volatile data")
	}
	for _, cdb := range []string{
		"00", "08 00 00 05 01 00", "28 00 00000000 00 0001 00", "2A 00 00000000 00 0001 00", "2F 00 00000000 00 0001 00",
		"35 00 00000000 00 0000 00", "42 00 00000000 00 0018 00", "41 00 00000000 00 0001 00",
	} {
		r.expect("2/0402", cdb, make([]byte, 512)...)
	}
	for _, cdb := range []string{"12 00 00 00 24 00", "1A 00 08 00 FF 00", "25", "03 00 00 00 12 00", "1B 00 00 00 00 00"} {
		if _, st := r.do(cdb); st.code != Good {
			t.Errorf("%s: %s", cdb, text(st))
		}
	}
	r.expect("good", "1B 00 00 00 01 00")
	r.expect("good", "28 00 00000000 00 0001 00")
	r.expect("good", "1B 00 00 00 00 00")
	r.unit.Reset()
	r.expect("6/2903", "00")
	r.expect("good", "00")
}

func TestStartStopRefusals(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d)
	r.expect("5/2400 byte 4 bit 1", "1B 00 00 00 02 00")
	r.expect("5/2400 byte 4 bit 7", "1B 00 00 00 40 00")
	r.expect("5/2400 byte 3 bit 3", "1B 00 00 01 10 00")
	r.expect("5/2400 byte 3 bit 3", "1B 00 00 03 20 00")
	r.expect("5/2400 byte 3 bit 3", "1B 00 00 02 B0 00")
	d.syncErr = errDisk
	r.expect("4/4400", "1B 00 00 00 00 00")
	r.expect("good", "00")
}

func TestPowerConditions(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	sense := func(code string) {
		t.Helper()
		r.golden("03 01 00 00 FC 00", "72 00 "+code+" 000000 00")
	}
	for _, x := range []struct{ cdb, code string }{
		{"1B 00 00 00 20 00", "5E03"}, {"1B 00 00 01 20 00", "5E06"}, {"1B 00 00 02 A0 00", "5E08"},
		{"1B 00 00 00 30 00", "5E04"}, {"1B 00 00 01 B0 00", "5E0A"},
	} {
		r.expect("good", x.cdb)
		sense(x.code)
		r.expect("good", "00")
		sense(x.code)
		r.do("28 00 00000000 00 0001 00")
		sense("0000")
	}
	r.expect("good", "1B 00 00 00 20 00")
	r.expect("good", "1B 00 00 00 70 00")
	sense("0000")
	r.expect("good", "1B 00 00 00 30 00")
	r.expect("good", "1B 00 00 00 10 00")
	sense("0000")
}

func TestStandbyFlushes(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d)
	r.expect("good", "2A 00 00000000 00 0001 00", pattern(512)...)
	r.expect("good", "1B 00 00 00 34 00") // NO_FLUSH
	if d.syncs != 0 {
		t.Error("flushed though NO_FLUSH was set")
	}
	r.expect("good", "1B 00 00 00 30 00")
	if !bytes.Equal(d.now, d.stable) {
		t.Error("standby with volatile data")
	}
}
