package scsi

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTimestamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock stands at 2000-01-01
		r := newRig(t, newDisk(64, 512))
		other := r.attach(NexusConfig{InitiatorPort: "iqn.j,i,0x2"})
		r.golden("A3 0F 00000000 00000100 00 00", "000A 03 00 00DC6ACFAC00 0000")
		r.golden("A3 0F 00000000 00000003 00 00", "000A 03")
		r.expect("good", "A4 0F 00000000 0000000C 00 00", unhex(t, "00000000 0123456789AB 0000")...)
		time.Sleep(time.Second) //nolint:forbidigo // in a bubble: the clock moves on
		r.golden("A3 0F 00000000 00000100 00 00", "000A 02 00 012345678D93 0000")
		if _, st := run(t, other, "00", nil); text(st) != "6/2A10" {
			t.Errorf("another initiator: %s", text(st))
		}
		r.expect("good", "00")
		r.expect("good", "A4 0F 00000000 00000000 00 00")
		r.expect("5/1A00", "A4 0F 00000000 0000000B 00 00", make([]byte, 11)...)
		r.expect("5/2400 byte 6 bit 7", "A4 0F 00000000 0000000D 00 00", make([]byte, 13)...)
		r.expect("5/1A00", "A4 0F 00000000 0000000C 00 00", make([]byte, 11)...)
	})
}
