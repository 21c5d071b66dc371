package scsi

import (
	"bytes"
	"testing"
)

func TestRequestSense(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	r.golden("03 00 00 00 FC 00", "70 00 00 00000000 0A 00000000 0000 00 000000")
	r.golden("03 01 00 00 FC 00", "72 00 0000 000000 00")
	r.golden("03 00 00 00 04 00", "70 00 00 00")
	r.expect("good", "03 00 00 00 00 00")
	r.unit.Reset()
	r.golden("03 01 00 00 FC 00", "72 06 2903 000000 00")
	r.expect("good", "00")
	r.expect("good", "1B 00 00 00 00 00")
	r.golden("03 00 00 00 FC 00", "70 00 02 00000000 0A 00000000 0402 00 000000")
	c := r.nexus.Decode([8]byte{0, 3}, Simple, parse(t, "03 00 00 00 FC 00"))
	if want := parse(t, "70 00 05 00000000 0A 00000000 2500 00 000000"); c.Status.code != Good || !bytes.Equal(c.Data, want) {
		t.Errorf("without a unit: %s, %x", text(c.Status), c.Data)
	}
}
