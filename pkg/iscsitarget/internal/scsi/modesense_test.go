package scsi

import "testing"

const (
	cachingHex    = "08 12 0400 00000000 00000000 00000000 00000000"
	controlHex    = "0A 0A 00 10 0000 0000 0000 0000"
	powerHex      = "1A 26" + "0000000000000000000000000000000000000000000000000000000000000000000000000000"
	exceptionsHex = "1C 0A 00000000 00000000 0000"
)

func TestModeSense(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	r.golden("1A 00 08 00 FF 00", "1F 00 10 08 00000040 00000200"+cachingHex)
	r.golden("1A 08 08 00 FF 00", "17 00 10 00"+cachingHex)
	r.golden("1A 08 08 FF FF 00", "17 00 10 00"+cachingHex)
	r.golden("1A 08 0A 00 FF 00", "0F 00 10 00"+controlHex)
	r.golden("1A 08 1C 00 FF 00", "0F 00 10 00"+exceptionsHex)
	r.golden("1A 08 3F 00 FF 00", "57 00 10 00"+cachingHex+controlHex+powerHex+exceptionsHex)
	r.golden("1A 08 3F FF FF 00", "57 00 10 00"+cachingHex+controlHex+powerHex+exceptionsHex)
	r.golden("1A 08 3F 00 06 00", "57 00 10 00 08 12")
	r.golden("1A 08 48 00 FF 00", "17 00 10 00 08 12 04")          // changeable
	r.golden("1A 08 4A 00 FF 00", "0F 00 10 00 0A 0A 24 06 08 40") // changeable
	r.golden("1A 08 5C 00 FF 00", "0F 00 10 00 1C 0A")
	r.golden("1A 08 88 00 FF 00", "17 00 10 00"+cachingHex)
	r.golden("5A 00 08 00 000000 00FF 00", "0022 00 10 00 00 0008 00000040 00000200"+cachingHex)
	r.golden("5A 10 08 00 000000 00FF 00", "002A 00 10 01 00 0010 0000000000000040 00000000 00000200"+cachingHex)
	r.golden("5A 18 0A 00 000000 00FF 00", "0012 00 10 00 00 0000"+controlHex)
	r.golden("5A 08 3F 00 000000 0003 00", "005A 00")
	r.expect("5/3900", "1A 08 C8 00 FF 00")
	r.expect("5/3900", "5A 08 FF FF 000000 00FF 00")
	r.expect("5/2400 byte 2 bit 5", "1A 08 02 00 FF 00")
	r.expect("5/2400 byte 2 bit 5", "1A 08 00 00 FF 00")
	r.expect("5/2400 byte 3 bit 7", "1A 08 0A 01 FF 00")
	r.expect("5/2400 byte 3 bit 7", "1A 08 3F 01 FF 00")
}

func TestModeSenseState(t *testing.T) {
	r := newRig(t, newDisk(64, 4096), writeThrough, readOnly)
	r.golden("1A 00 08 00 FF 00", "1F 00 90 08 00000040 00001000 08 12")
	r.unit.settings.Store(&settings{DescriptorSense: true})
	r.golden("1A 08 0A 00 FF 00", "0F 00 90 00 0A 0A 04 10")
	r.golden("1A 08 8A 00 FF 00", "0F 00 90 00 0A 0A 00 10")
	r.unit.blocks.Store(1 << 33)
	r.golden("1A 00 08 00 0C 00", "1F 00 90 08 FFFFFFFF 00001000")

	w := newRig(t, newDisk(64, 512))
	w.nexus = w.attach(NexusConfig{ReadOnly: true})
	w.golden("5A 08 0A 00 000000 00FF 00", "0012 00 90 00 00 0000"+controlHex)
}
