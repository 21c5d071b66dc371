package scsi

import "testing"

func TestReadCapacity(t *testing.T) {
	for _, x := range []struct {
		r            *rig
		blocks       int64
		ten, sixteen string
	}{
		{newRig(t, newDisk(64, 512)), 64, "0000003F 00000200", "000000000000003F 00000200 00 03 0000"},
		{newRig(t, newDisk(8, 4096)), 8, "00000007 00001000", "0000000000000007 00001000 00 00 0000"},
		{newRig(t, thinDisk{newDisk(64, 512)}), 64, "0000003F 00000200", "000000000000003F 00000200 00 03 C000"},
		{newRig(t, newDisk(64, 512)), 1 << 32, "FFFFFFFF 00000200", "00000000FFFFFFFF 00000200 00 03 0000"},
		{newRig(t, newDisk(64, 512)), 1<<32 + 1, "FFFFFFFF 00000200", "0000000100000000 00000200 00 03 0000"},
		{newRig(t, newDisk(64, 512)), 0, "00000000 00000200", "0000000000000000 00000200 00 03 0000"},
	} {
		x.r.unit.blocks.Store(x.blocks)
		x.r.golden("25 00 00000000 0000 00 00", x.ten)
		x.r.golden("9E 10 0000000000000000 00000020 00 00", x.sixteen)
		x.r.golden("9E 10 0000000000000000 00000005 00 00", x.sixteen[:10])
		if data, _ := x.r.do("9E 10 0000000000000000 FFFFFFFF 00 00"); len(data) != 32 {
			t.Errorf("%d bytes", len(data))
		}
	}
	r := newRig(t, newDisk(64, 512))
	r.expect("5/2400 byte 2 bit 7", "25 00 00000001 0000 00 00")
	r.golden("25 00 00000001 0000 01 00", "0000003F 00000200")
	r.expect("5/2400 byte 1 bit 4", "9E 12 0000000000000000 00000020 00 00")
}

func TestCapacityGrows(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d)
	d.set(func() { d.now, d.stable = append(d.now, make([]byte, 512)...), append(d.stable, make([]byte, 512)...) })
	r.expect("5/2100", "28 00 00000040 00 0001 00")
	r.unit.CapacityChanged()
	r.expect("6/2A09", "28 00 00000040 00 0001 00")
	r.expect("good", "28 00 00000040 00 0001 00")
	r.golden("25 00 00000000 0000 00 00", "00000040 00000200")
}
