package scsi

import (
	"bytes"
	"testing"
)

func TestSynchronizeCache(t *testing.T) {
	for cdb, want := range map[string]string{
		"35 00 00000000 00 0000 00":             "good",
		"35 02 00000004 00 0001 00":             "good",
		"35 00 0000003F 00 0001 00":             "good",
		"91 00 0000000000000000 00000000 00 00": "good",
		"91 00 0000000000000000 00000040 00 00": "good",
		"35 00 00000041 00 0000 00":             "5/2100",
		"35 00 00000000 00 0041 00":             "5/2100",
		"91 00 FFFFFFFFFFFFFFFF 00000001 00 00": "5/2100",
	} {
		d := newDisk(64, 512)
		r := newRig(t, d)
		r.expect("good", "2A 00 00000004 00 0001 00", pattern(512)...)
		r.expect(want, cdb)
		if got := bytes.Equal(d.now, d.stable); got != (want == "good") {
			t.Errorf("%s: stable %v", cdb, got)
		}
	}
}

func TestFailedFlushNeverSucceeds(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d)
	r.expect("good", "2A 00 00000004 00 0001 00", pattern(512)...)
	d.syncErr = errDisk // once: the next Sync would succeed without the data
	for range 3 {
		r.expect("4/4400", "35 00 00000000 00 0000 00")
	}
}
