package scsi

import (
	"encoding/binary"
)

// Limits on a list of third-party copy, as VPD page 8Fh and RECEIVE COPY
// RESULTS advertise them.
const (
	maxCSCDs    = 64
	maxSegments = 64
	// maxCopyListBytes is for the CSCD and the segment descriptors together.
	maxCopyListBytes = maxCSCDs*cscdBytes + maxSegments*segmentBytes
	// maxSegmentBytes is what one segment moves.
	maxSegmentBytes = 64 << 20
)

// Descriptor type codes (SPC-4, EXTENDED COPY).
const (
	segmentBlockToBlock = 0x02
	cscdIdentification  = 0xE4
	cscdExtension       = 0xFF

	cscdBytes    = 32
	segmentBytes = 28
)

// thisUnit is the CSCD descriptor ID of the logical unit that has the command.
const thisUnit = 0xFFFF

// Values of LIST ID USAGE (SPC-4, EXTENDED COPY parameter list).
const (
	listIDHold     = 0 // held data is kept
	listIDReserved = 1
	listIDDiscard  = 2 // held data need not be kept
	listIDNone     = 3 // the operation has no list identifier
)

// copyList is the parameter list of EXTENDED COPY, in either format.
type copyList struct {
	id uint32
	// named: the operation can be asked for by id.
	named    bool
	cscds    []cscd
	segments []segment
}

// cscd is a copy source or copy destination by its identification descriptor
// (SPC-4, CSCD descriptors).
type cscd struct {
	deviceType  byte
	codeSet     byte
	kind        byte   // association and designator type
	length      int    // of the designator, of which
	designator  []byte // has what the field holds
	blockLength int64  // 0: whatever the unit has
}

// segment is a block-to-block segment descriptor (SPC-4, segment descriptors).
type segment struct {
	source, destination uint16
	blocks              int64
	// ofDestination: blocks are counted in the destination's (DC).
	ofDestination             bool
	sourceLBA, destinationLBA uint64
}

// copyHeader is what the two formats of the list have in common.
type copyHeader struct {
	usage                   byte
	cscds, segments, inline uint64 // in bytes
	cscdsAt, usageAt, idAt  int    // where the fields and the descriptors are
	length                  int
}

// parseCopyList1 reads the parameter list of SPC-4's EXTENDED COPY(LID1). PRIORITY
// and STR ask for nothing that makes a difference here.
func parseCopyList1(p []byte) (copyList, Status) {
	const header = 16
	if len(p) < header {
		return copyList{}, check(illegalRequest, ascParameterListLength)
	}
	h := copyHeader{
		usage: p[1] >> 3 & 3, usageAt: 1, idAt: 0, cscdsAt: 2, length: header,
		cscds:    uint64(binary.BigEndian.Uint16(p[2:])),
		segments: uint64(binary.BigEndian.Uint32(p[8:])),
		inline:   uint64(binary.BigEndian.Uint32(p[12:])),
	}
	return h.parse(uint32(p[0]), p)
}

// parseCopyList4 reads the parameter list of SPC-4's EXTENDED COPY(LID4). G_SENSE
// and IMMED change nothing: the operation is over when the command is.
func parseCopyList4(p []byte) (copyList, Status) {
	const (
		header      = 48
		format      = 1
		headerCSCDs = 0x20
	)
	if len(p) < header {
		return copyList{}, check(illegalRequest, ascParameterListLength)
	}
	switch {
	case p[0] != format:
		return copyList{}, invalidParameter(0, 7)
	case binary.BigEndian.Uint16(p[2:]) != headerCSCDs:
		return copyList{}, invalidParameter(2, 7)
	case p[16] != cscdExtension:
		return copyList{}, invalidParameter(16, 7)
	}
	h := copyHeader{
		usage: p[1] >> 3 & 3, usageAt: 1, idAt: 20, cscdsAt: 42, length: header,
		cscds:    uint64(binary.BigEndian.Uint16(p[42:])),
		segments: uint64(binary.BigEndian.Uint16(p[44:])),
		inline:   uint64(binary.BigEndian.Uint16(p[46:])),
	}
	return h.parse(binary.BigEndian.Uint32(p[20:]), p)
}

// parse reads the descriptors. What is wrong with the list as a whole is found
// before anything is looked at in it.
func (h copyHeader) parse(id uint32, p []byte) (copyList, Status) {
	list := copyList{id: id, named: h.usage != listIDNone}
	if st := h.check(id, uint64(len(p))); st.code != Good {
		return list, st
	}
	at, end := h.length, h.length+int(h.cscds)
	for ; at < end; at += cscdBytes {
		d, st := parseCSCD(p[:end], at)
		if st.code != Good {
			return list, st
		}
		list.cscds = append(list.cscds, d)
	}
	for end = at + int(h.segments); at < end; at += segmentBytes {
		if len(list.segments) == maxSegments {
			return list, check(illegalRequest, ascTooManySegments)
		}
		s, st := parseSegment(p[:end], at)
		if st.code != Good {
			return list, st
		}
		list.segments = append(list.segments, s)
	}
	return list, StatusGood
}

func (h copyHeader) check(id uint32, length uint64) Status {
	switch {
	case h.usage == listIDReserved:
		return invalidParameter(h.usageAt, 4)
	case h.usage == listIDNone && id != 0:
		return invalidParameter(h.idAt, 7)
	case h.cscds+h.segments > maxCopyListBytes || uint64(h.length)+h.cscds+h.segments+h.inline > length:
		return check(illegalRequest, ascParameterListLength)
	case h.inline > 0:
		return check(illegalRequest, ascInlineDataLengthExceeded)
	case h.cscds%cscdBytes != 0:
		return invalidParameter(h.cscdsAt, 7)
	case h.cscds > maxCSCDs*cscdBytes:
		return check(illegalRequest, ascTooManyCSCDs)
	}
	return StatusGood
}

// parseCSCD reads the identification descriptor at p[at:]. LU ID TYPE and NUL are
// obsolete in SPC-4. The T10 designator of 24 bytes that the iSCSI Enterprise Target gave
// its units is longer than the field: libiscsi gives its length, and what the field holds
// of it names the unit.
func parseCSCD(p []byte, at int) (cscd, Status) {
	b := p[at : at+cscdBytes]
	if b[0] != cscdIdentification {
		return cscd{}, check(illegalRequest, ascUnsupportedCSCDType)
	}
	const designatorAt, longest = 8, 20
	n := int(b[7])
	if n > longest && n != 8+t10Binary {
		return cscd{}, invalidParameter(at+7, 7)
	}
	return cscd{
		deviceType:  b[1] & 0x1F,
		codeSet:     b[4] & 0x0F,
		kind:        b[5] & 0x3F,
		length:      n,
		designator:  b[designatorAt : designatorAt+min(n, longest)],
		blockLength: int64(bigEndian(b[29:32])),
	}, StatusGood
}

// parseSegment reads the block-to-block descriptor at p[at:].
func parseSegment(p []byte, at int) (segment, Status) {
	b := p[at:]
	switch {
	case b[0] != segmentBlockToBlock:
		return segment{}, check(illegalRequest, ascUnsupportedSegmentType)
	case len(b) < segmentBytes:
		return segment{}, check(illegalRequest, ascParameterListLength)
	case binary.BigEndian.Uint16(b[2:]) != segmentBytes-4:
		return segment{}, invalidParameter(at+2, 7)
	}
	return segment{
		ofDestination:  b[1]&(1<<1) != 0,
		source:         binary.BigEndian.Uint16(b[4:]),
		destination:    binary.BigEndian.Uint16(b[6:]),
		blocks:         int64(binary.BigEndian.Uint16(b[10:])),
		sourceLBA:      binary.BigEndian.Uint64(b[12:]),
		destinationLBA: binary.BigEndian.Uint64(b[20:]),
	}, StatusGood
}
