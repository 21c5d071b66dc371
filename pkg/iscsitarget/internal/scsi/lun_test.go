package scsi

import "testing"

func TestLUNs(t *testing.T) {
	for _, x := range []struct {
		raw  [8]byte
		want uint16
		ok   bool
	}{
		{[8]byte{}, 0, true},
		{[8]byte{0, 255}, 255, true},
		{[8]byte{0x40, 5}, 5, true},
		{[8]byte{0x7F, 0xFF}, 0x3FFF, true},
		{[8]byte{1, 5}, 0, false},
		{[8]byte{0x80, 5}, 0, false},
		{[8]byte{0xC1, 1}, 0, false},
		{[8]byte{0, 5, 0, 1}, 0, false},
		{[8]byte{0, 5, 0, 0, 0, 0, 0, 1}, 0, false},
	} {
		if got, ok := parseLUN(x.raw); got != x.want || ok != x.ok {
			t.Errorf("%x: %d %v", x.raw, got, ok)
		}
	}
	for lun := range uint16(maxLUN + 1) {
		if got, ok := parseLUN([8]byte(appendLUN(nil, lun))); !ok || got != lun {
			t.Fatalf("%d came back as %d %v", lun, got, ok)
		}
	}
}
