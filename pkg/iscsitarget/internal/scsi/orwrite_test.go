package scsi

import (
	"bytes"
	"testing"
)

func TestORWrite(t *testing.T) {
	d := newDisk(64, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, d)
	p := pattern(3 * 512)
	want := bytes.Clone(before[4*512 : 7*512])
	for i := range want {
		want[i] |= p[i]
	}
	r.expect("good", "8B 08 0000000000000004 00000003 00 00", p...)
	holds(t, d, before, 4, want)
	if !bytes.Equal(d.stable, d.now) {
		t.Error("FUA is not stable")
	}
	r.expect("5/2100", "8B 00 000000000000003F 00000002 00 00", make([]byte, 1024)...)
	r.expect("5/2400 byte 1 bit 7", "8B 20 0000000000000004 00000003 00 00")
	d.readErr = errDisk
	r.expect("3/1100 at 5", "8B 00 0000000000000004 00000003 00 00", p...)
}
