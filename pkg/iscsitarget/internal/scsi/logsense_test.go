package scsi

import "testing"

func TestLogSense(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, mappedDisk{thinDisk{d}})
	r.golden("4D 00 40 00 00 0000 0100 00", "00 00 0004 00 0C 0D 2F")
	r.golden("4D 00 40 FF 00 0000 0100 00", "40 FF 000A 0000 00FF 0C00 0D00 2F00")
	r.golden("12 01 B2 01 00 00", "00 B2 0004 0B E4 02 00")
	r.golden("4D 00 4C 00 00 0000 0100 00", "0C 00 0018 0001 03 08 00000005 02000000 0002 03 08 00000003 01000000")
	r.golden("4D 00 4C 00 00 0002 0100 00", "0C 00 000C 0002 03 08 00000003 01000000")
	r.golden("4D 00 4D 00 00 0000 0100 00", "0D 00 000C 0000 03 02 00FF 0001 03 02 00FF")
	r.golden("4D 00 CD 00 00 0001 0005 00", "0D 00 0006 00")
	r.golden("4D 00 6F 00 00 0000 0100 00", "2F 00 0008 0000 03 04 0000FF00")
	r.expect("5/2400 byte 5 bit 7", "4D 00 4D 00 00 0002 0100 00")
	r.expect("5/2400 byte 5 bit 7", "4D 00 40 00 00 0001 0100 00")
	r.expect("5/2400 byte 1 bit 0", "4D 01 40 00 00 0000 0100 00")
	r.expect("5/2400 byte 2 bit 7", "4D 00 00 00 00 0000 0100 00")
	r.expect("5/2400 byte 2 bit 5", "4D 00 42 00 00 0000 0100 00")
	r.expect("5/2400 byte 3 bit 7", "4D 00 4D 01 00 0000 0100 00")
	d.readErr = errDisk
	r.expect("3/1100 at 0", "4D 00 4C 00 00 0000 0100 00")

	thick := newRig(t, newDisk(64, 512))
	thick.golden("4D 00 40 00 00 0000 0100 00", "00 00 0003 00 0D 2F")
	thick.expect("5/2400 byte 2 bit 5", "4D 00 4C 00 00 0000 0100 00")
}
