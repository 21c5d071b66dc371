package scsi

import "encoding/binary"

const (
	// noLogicalUnit is peripheral qualifier 3, device type 1Fh: nothing is
	// or could be behind this LUN.
	noLogicalUnit = 0x7F
	// directAccess is qualifier 0 with device type 0, SBC.
	directAccess = 0x00

	versionSPC4      = 0x06
	responseFormat   = 0x02
	normalACA        = 1 << 5 // NORMACA
	hierarchical     = 1 << 4 // HISUP: LUNs are in the format of SAM-5
	thirdPartyCopy   = 1 << 3 // 3PC: VPD page 8Fh says what
	commandQueuing   = 1 << 1
	standardBytes    = 96
	enableVPD        = 1 << 0
	firstDescriptor  = 58
	padCharacter     = ' '
	firstPrintable   = 0x20
	lastPrintable    = 0x7E
	additionalLength = 4
)

// versionDescriptors are SAM-5, iSCSI, SPC-4 and SBC-3, each without a claimed
// revision (SPC-4 section 6.4.2). The transport's stands here as data: what
// carries the commands is no concern of this package otherwise.
var versionDescriptors = [...]uint16{0x00A0, 0x0960, 0x0460, 0x04C0}

// decodeInquiry is INQUIRY, SPC-4 section 6.4, on any LUN.
func decodeInquiry(r request) Command {
	allocation := bigEndian(r.cdb[3:5])
	switch {
	case r.cdb[1]&enableVPD != 0:
		return r.vpd(allocation)
	case r.cdb[1] != 0: // CMDDT is obsolete
		return r.fail(invalidField(1, 1))
	case r.cdb[2] != 0:
		return r.fail(invalidField(2, 7))
	}
	return r.data(r.standardInquiry(), allocation)
}

func (r request) standardInquiry() []byte {
	b := make([]byte, standardBytes)
	b[0] = r.peripheral()
	b[2] = versionSPC4
	b[3] = hierarchical | responseFormat
	b[additionalLength] = standardBytes - additionalLength - 1
	b[7] = commandQueuing
	var c UnitConfig
	if r.itl != nil {
		c = r.itl.unit.config
		b[3] |= normalACA
		b[5] = bothTPGS | thirdPartyCopy
	}
	putText(b[8:16], c.Vendor)
	putText(b[16:32], c.Product)
	putText(b[32:36], c.Revision)
	for i, v := range versionDescriptors {
		binary.BigEndian.PutUint16(b[firstDescriptor+2*i:], v)
	}
	return b
}

func (r request) peripheral() byte {
	if r.itl == nil {
		return noLogicalUnit
	}
	return directAccess
}

// putText fills a field of left-aligned ASCII data (SPC-4 section 4.3.1): cut or
// padded with spaces, and with a space for what is not printable.
func putText(field []byte, s string) {
	n := copy(field, s)
	for i := range field {
		if i >= n || field[i] < firstPrintable || field[i] > lastPrintable {
			field[i] = padCharacter
		}
	}
}
