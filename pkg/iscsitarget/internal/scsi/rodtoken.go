package scsi

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
)

// ROD types (SPC-4, ROD token format).
const (
	rodPointInTime     = 0x0080_0000 // the copy manager chooses
	rodChangeCancels   = 0x0080_0001 // point in time copy - change vulnerable
	rodAnyPointInTime  = 0x0080_FFFF
	rodBlockDeviceZero = 0xFFFF_0001
)

// Fields of a ROD token (SPC-4, ROD token format).
const (
	rodTokenBytes      = 512
	rodTokenLength     = rodTokenBytes - 8 // its ROD TOKEN LENGTH field
	rodManagementBytes = 96                // what REPORT ALL ROD TOKENS gives of it
	rodCreatorAt       = 16
	rodSizeAt          = 48
	rodBlockAt         = 96
	rodSecretAt        = 160
)

// newTokenText makes a token of a unit. What REPORT ALL ROD TOKENS shows of it
// and what can be guessed comes first; the rest is random.
func (u *Unit) newTokenText(serial uint64, length int64) (b [rodTokenBytes]byte) {
	binary.BigEndian.PutUint32(b[0:], rodChangeCancels)
	binary.BigEndian.PutUint16(b[6:], rodTokenLength)
	binary.BigEndian.PutUint64(b[8:], serial)
	u.putCreator(b[rodCreatorAt : rodCreatorAt+cscdBytes])
	binary.BigEndian.PutUint64(b[rodSizeAt+8:], uint64(length)) // of 128 bits
	binary.BigEndian.PutUint32(b[rodBlockAt:], uint32(u.blockSize))
	b[rodBlockAt+5] = byte(bits.TrailingZeros64(u.perPhysical()))
	if u.thin() {
		b[rodBlockAt+6] = lbpmeBit | lbprzBit
	}
	_, _ = rand.Read(b[rodSecretAt:]) // never fails (crypto/rand)
	return b
}

// putCreator is the unit as an identification CSCD descriptor, by the first of
// its names that fits one.
func (u *Unit) putCreator(b []byte) {
	b[0] = cscdIdentification
	b[31] = byte(u.blockSize)
	b[30] = byte(u.blockSize >> 8)
	for names := unitDesignators(u.config); len(names) > 0; {
		n := 4 + int(names[3])
		if n <= 24 {
			copy(b[4:28], names[:n])
			return
		}
		names = names[n:]
	}
}

// unknownToken is the status for a token that no unit of the nexus made.
func unknownToken(text []byte) Status {
	switch {
	case binary.BigEndian.Uint16(text[6:]) != rodTokenLength:
		return check(illegalRequest, ascInvalidTokenLength)
	case binary.BigEndian.Uint32(text) != rodChangeCancels:
		return check(illegalRequest, ascUnsupportedTokenType)
	}
	return check(illegalRequest, ascTokenUnknown)
}

// isZeroToken says that a token is the block device zero ROD token: nobody makes
// it, and it stands for as many zeros as are asked for (SBC-3).
func isZeroToken(text []byte) bool {
	return binary.BigEndian.Uint32(text) == rodBlockDeviceZero && binary.BigEndian.Uint16(text[6:]) == rodTokenLength
}
