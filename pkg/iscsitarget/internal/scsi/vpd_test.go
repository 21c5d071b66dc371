package scsi

import (
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func TestVPDPages(t *testing.T) {
	bare := func(c *UnitConfig) { c.Serial, c.NAA, c.T10ID = "", 0, "" }
	for _, x := range []struct {
		name  string
		dev   blockdev.Device
		edit  func(*UnitConfig)
		pages map[string]string
	}{
		{"thin, 512", thinDisk{newDisk(64, 512)}, writeThrough, map[string]string{
			"00": "00 00 000A 00 80 83 86 87 88 8F B0 B1 B2",
			"80": "00 80 0008 73657269616C2D31",
			"83": `00 83 004C 01 03 00 08 3123456789ABCDEF
				02 01 00 0C 4353492D49455444 69642D31
				51 94 00 04 00000001 51 95 00 04 00000001
				53 98 00 10 69716E2E742C742C 3078303030310000
				53 A8 00 08 69716E2E74 000000`,
			"86": "00 86 003C 00 07 01 000000000000 1C" + strings.Repeat("00", 50),
			"87": "00 87 0004 3F FF 00 00",
			"88": `00 88 0020 0000 0001 0000 0000 0000 0014
				53 98 00 10 69716E2E742C742C 3078303030310000`,
			"B0": `00 B0 003C 00 80 0008 00080000 00000800 00000000 00100000 00000100 00000080 80000000
				0000000000200000 0000000000000000 0000000000000000 00000000`,
			"B1": "00 B1 003C 0001 00 40" + strings.Repeat("00", 56),
			"B2": "00 B2 0004 00 E4 02 00",
		}},
		{"thick, 4096, nameless", newDisk(64, 4096), bare, map[string]string{
			"00": "00 00 0008 00 83 86 87 88 8F B0 B1",
			"83": `00 83 0030 51 94 00 04 00000001 51 95 00 04 00000001
				53 98 00 10 69716E2E742C742C 3078303030310000
				53 A8 00 08 69716E2E74 000000`,
			"B0": `00 B0 003C 00 10 0001 00010000 00000100 00000000 00000000 00000000 00000000 00000000
				0000000000040000 0000000000000000 0000000000000000 00000000`,
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, x.dev, x.edit)
			for page, want := range x.pages {
				r.golden("12 01 "+page+" 01 00 00", want)
				data, _ := r.do("12 01 " + page + " 01 00 00")
				if len(data) != len(unhex(t, want)) {
					t.Errorf("page %s has %d bytes", page, len(data))
				}
				if data, st := r.do("12 01 " + page + " 00 03 00"); len(data) != 3 || st.code != Good {
					t.Errorf("page %s is not cut to the allocation length", page)
				}
			}
			for _, page := range []string{"80", "B2", "84", "FF", "01"} {
				if _, has := x.pages[page]; !has {
					r.expect("5/2400 byte 2 bit 7", "12 01 "+page+" 00 FF 00")
				}
			}
		})
	}
}

func TestOverlongNames(t *testing.T) {
	r := newRig(t, newDisk(64, 512), func(c *UnitConfig) {
		c.Serial, c.T10ID = strings.Repeat("s", 70000), strings.Repeat("i", 70000)
	})
	r.nexus = r.attach(NexusConfig{TargetPort: strings.Repeat("p", 70000)})
	for _, page := range []string{"80", "83"} {
		data, st := r.do("12 01 " + page + " FF FF 00")
		if st.code != Good || int(data[2])<<8+int(data[3])+4 != len(data) {
			t.Errorf("page %s: %s, %d bytes, length field %x", page, text(st), len(data), data[2:4])
		}
	}
}
