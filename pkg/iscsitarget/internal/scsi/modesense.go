package scsi

import (
	"encoding/binary"
	"math"
)

// Values of the page control field (SPC-4 section 6.13).
const (
	currentValues = iota
	changeableValues
	defaultValues
	savedValues
)

const (
	allPages    = 0x3F
	allSubpages = 0xFF
	// Bits of byte 1.
	disableDescriptors = 1 << 3
	longDescriptors    = 1 << 4
	// Bits of the device-specific parameter (SBC-3 section 6.4.1).
	writeProtected = 1 << 7
	dpoFUA         = 1 << 4
)

// decodeModeSense6 is MODE SENSE(6), SPC-4 section 6.13.
func decodeModeSense6(r request) Command {
	pages, st := r.modePages()
	if st.code != Good {
		return r.fail(st)
	}
	d := r.blockDescriptor(false)
	b := []byte{0, 0, r.deviceSpecific(), byte(len(d))}
	b = append(append(b, d...), pages...)
	b[0] = byte(len(b) - 1)
	return r.data(b, uint64(r.cdb[4]))
}

// decodeModeSense10 is MODE SENSE(10), SPC-4 section 6.14.
func decodeModeSense10(r request) Command {
	pages, st := r.modePages()
	if st.code != Good {
		return r.fail(st)
	}
	long := r.cdb[1]&longDescriptors != 0
	d := r.blockDescriptor(long)
	b := []byte{0, 0, 0, r.deviceSpecific(), 0, 0, 0, byte(len(d))}
	if long && len(d) > 0 {
		b[4] = 1 // LONGLBA
	}
	b = append(append(b, d...), pages...)
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return r.data(b, bigEndian(r.cdb[7:9]))
}

func (r request) deviceSpecific() byte {
	if r.itl.readOnly() {
		return dpoFUA | writeProtected
	}
	return dpoFUA
}

// blockDescriptor is the short or the long LBA mode parameter block descriptor
// (SBC-3 section 6.4.2), nothing if DBD asks for none.
func (r request) blockDescriptor(long bool) []byte {
	if r.cdb[1]&disableDescriptors != 0 {
		return nil
	}
	blocks, size := uint64(r.itl.unit.blocks.Load()), uint32(r.itl.unit.blockSize)
	if long {
		b := binary.BigEndian.AppendUint64(nil, blocks)
		return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 0), size)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(min(blocks, math.MaxUint32)))
	return binary.BigEndian.AppendUint32(b, size)
}

// modePages are the pages that the CDB asks for.
func (r request) modePages() ([]byte, Status) {
	control, code, subpage := r.cdb[2]>>6, r.cdb[2]&0x3F, r.cdb[3]
	if control == savedValues && !r.itl.unit.saves() {
		return nil, check(illegalRequest, ascSavingNotSupported)
	}
	var b []byte
	for i := range modePages {
		if p := &modePages[i]; p.in(r.itl.unit) && p.asked(code, subpage) {
			b = append(b, p.sense(r.itl.unit, control)...)
		}
	}
	switch {
	case b == nil && subpage != 0 && subpage != allSubpages:
		return nil, invalidField(3, 7)
	case b == nil:
		return nil, invalidField(2, 5)
	}
	return b, StatusGood
}
