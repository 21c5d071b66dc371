package scsi

import "testing"

func TestReportLUNs(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	for _, lun := range []uint16{0x3FFF, 255, 256} {
		u := newUnit(t, newDisk(8, 512))
		defer u.Close()
		if err := r.inventory.Add(lun, u); err != nil {
			t.Fatal(err)
		}
	}
	all := "00000020 00000000 0000000000000000 00FF000000000000 4100000000000000 7FFF000000000000"
	r.golden("A0 00 00 000000 00000100 00 00", all)
	r.golden("A0 00 02 000000 FFFFFFFF 00 00", all)
	r.golden("A0 00 01 000000 00000100 00 00", "00000000 00000000")
	r.golden("A0 00 00 000000 00000010 00 00", "00000020 00000000 0000000000000000")
	r.expect("5/2400 byte 6 bit 7", "A0 00 00 000000 0000000F 00 00")
	r.expect("5/2400 byte 2 bit 7", "A0 00 03 000000 00000100 00 00")
	for _, lun := range [][8]byte{{0, 9}, {0xC1, 1}, {0xFF}} {
		data, st := perform(r.nexus.Decode(lun, Simple, parse(t, "A0 00 00 000000 00000100 00 00")), nil)
		if st.code != Good || len(data) != 40 {
			t.Errorf("LUN %x: %s, %d bytes", lun, text(st), len(data))
		}
	}
}

func TestReportLUNsClearsItsAttention(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	r.inventory.lunsChanged()
	r.unit.CapacityChanged()
	if _, st := r.do("A0 00 00 000000 00000100 00 00"); st.code != Good {
		t.Fatal(text(st))
	}
	r.expect("6/2A09", "00")
	r.expect("good", "00")
}
