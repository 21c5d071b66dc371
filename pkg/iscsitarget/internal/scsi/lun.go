package scsi

// maxLUN is the highest number that flat space addressing can hold.
const maxLUN = 0x3FFF

// parseLUN reads a single-level LUN (SAM-5 section 4.7): peripheral device
// addressing on bus 0, or flat space addressing.
func parseLUN(b [8]byte) (uint16, bool) {
	if b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
		return 0, false
	}
	switch {
	case b[0] == 0:
		return uint16(b[1]), true
	case b[0]>>6 == 1:
		return uint16(b[0]&0x3F)<<8 | uint16(b[1]), true
	}
	return 0, false
}

// appendLUN appends the 8 bytes that REPORT LUNS gives for a number.
func appendLUN(b []byte, lun uint16) []byte {
	if lun < 0x100 {
		return append(b, 0, byte(lun), 0, 0, 0, 0, 0, 0)
	}
	return append(b, 0x40|byte(lun>>8), byte(lun), 0, 0, 0, 0, 0, 0)
}
