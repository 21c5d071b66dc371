package scsi

import (
	"bytes"
	"testing"
)

func TestStandardInquiry(t *testing.T) {
	standard := `00 00 06 32 5B 38 00 02 4353492D49455444 50562020202020202020202020202020 31202020
		00000000 00000000 00000000 00000000 00000000 0000 00A0 0960 0460 04C0`
	r := newRig(t, newDisk(64, 512))
	r.golden("12 00 00 00 FF 00", standard)
	data, _ := r.do("12 00 00 00 FF 00")
	if len(data) != 96 || int(data[4])+5 != len(data) {
		t.Errorf("%d bytes, additional length %d", len(data), data[4])
	}
	r.golden("12 00 00 00 05 00", "00 00 06 32 5B")
	r.expect("good", "12 00 00 00 00 00")
	r.expect("5/2400 byte 2 bit 7", "12 00 83 00 FF 00")
	r.expect("5/2400 byte 1 bit 1", "12 02 00 00 FF 00")
	r.expect("5/2400 byte 2 bit 7", "12 01 82 00 FF 00")
}

func TestInquiryText(t *testing.T) {
	r := newRig(t, newDisk(64, 512), func(c *UnitConfig) {
		c.Vendor, c.Product, c.Revision = "much too long", "a\x00b\xFFc", ""
	})
	data, _ := r.do("12 00 00 00 FF 00")
	if want := []byte("much tooa b c               "); !bytes.Equal(data[8:36], want) {
		t.Errorf("%q, want %q", data[8:36], want)
	}
}

func TestInquiryWithoutUnit(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	for _, lun := range [][8]byte{{0, 1}, {0x40, 1}, {1, 0}, {0xC1, 1}, {0, 0, 0, 1}, {0xFF}} {
		inquire := func(cdb string) ([]byte, Status) { return perform(r.nexus.Decode(lun, Simple, parse(t, cdb)), nil) }
		data, st := inquire("12 00 00 00 60 00")
		if st.code != Good || len(data) != 96 || data[0] != 0x7F {
			t.Errorf("LUN %x: %s, %x", lun, text(st), data)
		}
		if data, _ := inquire("12 01 00 00 60 00"); !bytes.Equal(data, []byte{0x7F, 0, 0, 1, 0}) {
			t.Errorf("LUN %x: VPD pages %x", lun, data)
		}
		if _, st := inquire("12 01 83 00 60 00"); text(st) != "5/2400 byte 2 bit 7" {
			t.Errorf("LUN %x: %s", lun, text(st))
		}
	}
}
