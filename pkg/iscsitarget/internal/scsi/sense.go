package scsi

import (
	"encoding/binary"
	"math"
)

// senseKey is a sense key of SPC-4 section 4.5.6.
type senseKey byte

const (
	noSense        senseKey = 0x0
	notReady       senseKey = 0x2
	mediumError    senseKey = 0x3
	hardwareError  senseKey = 0x4
	illegalRequest senseKey = 0x5
	unitAttention  senseKey = 0x6
	dataProtect    senseKey = 0x7
	abortedCommand senseKey = 0xB
	miscompare     senseKey = 0xE
)

// Additional sense codes, ASC<<8|ASCQ (SPC-4 annex F).
const (
	ascNone                     uint16 = 0x0000
	ascOverlappingAtomic        uint16 = 0x0023
	ascInitializingRequired     uint16 = 0x0402
	ascFormatInProgress         uint16 = 0x0404
	ascStandby                  uint16 = 0x040B
	ascUnavailable              uint16 = 0x040C
	ascSanitizeInProgress       uint16 = 0x041B
	ascWriteError               uint16 = 0x0C00
	ascInvalidFieldInCommandIU  uint16 = 0x0E03
	ascUnrecoveredReadError     uint16 = 0x1100
	ascParameterListLength      uint16 = 0x1A00
	ascMiscompareDuringVerify   uint16 = 0x1D00
	ascInvalidOpcode            uint16 = 0x2000
	ascFormatFailed             uint16 = 0x3101
	ascSanitizeFailed           uint16 = 0x3103
	ascLBAOutOfRange            uint16 = 0x2100
	ascInvalidFieldInCDB        uint16 = 0x2400
	ascLogicalUnitNotSupported  uint16 = 0x2500
	ascInvalidFieldInParameters uint16 = 0x2600
	ascInvalidRelease           uint16 = 0x2604
	ascWriteProtected           uint16 = 0x2700
	ascSpaceAllocationFailed    uint16 = 0x2707
	ascPowerOnOrReset           uint16 = 0x2900
	ascDeviceReset              uint16 = 0x2903
	ascNexusLoss                uint16 = 0x2907
	ascModeParametersChanged    uint16 = 0x2A01
	ascAccessStateChanged       uint16 = 0x2A06
	ascReservationsPreempted    uint16 = 0x2A03
	ascReservationsReleased     uint16 = 0x2A04
	ascRegistrationsPreempted   uint16 = 0x2A05
	ascCapacityChanged          uint16 = 0x2A09
	ascTimestampChanged         uint16 = 0x2A10
	ascThresholdReached         uint16 = 0x3807
	ascTasksCleared             uint16 = 0x2F00
	ascProtocolEvent            uint16 = 0x477F
	ascSelfTestFailed           uint16 = 0x3E03
	ascSavingNotSupported       uint16 = 0x3900
	ascReportedLUNsChanged      uint16 = 0x3F0E
	ascInternalTargetFailure    uint16 = 0x4400
	ascInvalidMessage           uint16 = 0x4900
	ascNoRegistrationResources  uint16 = 0x5504
)

// Bits of the first sense-key specific byte, the field pointer of SPC-4
// section 4.5.2.4.2.
const (
	sksValid        = 0x80
	sksInCDB        = 0x40
	sksBitValid     = 0x08
	fixedSenseBytes = 18
	// maxSenseBytes is the longest sense data: descriptor format with two
	// descriptors.
	maxSenseBytes = 8 + 12 + 8
)

// sense is the sense data of one command.
type sense struct {
	key        senseKey
	code       uint16 // ASC<<8|ASCQ
	specific   [3]byte
	info       uint64
	hasInfo    bool
	descriptor bool
}

func (s sense) append(b []byte) []byte {
	if s.descriptor {
		return s.appendDescriptors(b)
	}
	return s.appendFixed(b)
}

// appendFixed follows SPC-4 section 4.5.3. An INFORMATION value of more than
// 32 bits does not fit: it is left out and VALID stays zero.
func (s sense) appendFixed(b []byte) []byte {
	var f [fixedSenseBytes]byte
	f[0] = 0x70
	f[2] = byte(s.key)
	if s.hasInfo && s.info <= math.MaxUint32 {
		f[0] |= 0x80
		binary.BigEndian.PutUint32(f[3:], uint32(s.info))
	}
	f[7] = fixedSenseBytes - 8
	binary.BigEndian.PutUint16(f[12:], s.code)
	copy(f[15:], s.specific[:])
	return append(b, f[:]...)
}

// appendDescriptors follows SPC-4 section 4.5.2.
func (s sense) appendDescriptors(b []byte) []byte {
	start := len(b)
	b = append(b, 0x72, byte(s.key), byte(s.code>>8), byte(s.code), 0, 0, 0, 0)
	if s.hasInfo {
		b = append(b, 0x00, 0x0A, 0x80, 0)
		b = binary.BigEndian.AppendUint64(b, s.info)
	}
	if s.specific[0]&sksValid != 0 {
		b = append(b, 0x02, 0x06, 0, 0, s.specific[0], s.specific[1], s.specific[2], 0)
	}
	b[start+7] = byte(len(b) - start - 8)
	return b
}

// invalidField is ILLEGAL REQUEST, INVALID FIELD IN CDB, pointing at the most
// significant bit of the field.
func invalidField(at, bit int) Status {
	st := check(illegalRequest, ascInvalidFieldInCDB)
	st.sense.specific = fieldPointer(sksInCDB, at, bit)
	return st
}

// invalidParameter is invalidField for the parameter list.
func invalidParameter(at, bit int) Status {
	st := check(illegalRequest, ascInvalidFieldInParameters)
	st.sense.specific = fieldPointer(0, at, bit)
	return st
}

func fieldPointer(where byte, at, bit int) [3]byte {
	return [3]byte{sksValid | where | sksBitValid | byte(bit&7), byte(at >> 8), byte(at)}
}
