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

// modePage is a mode page. values is the page after its two-byte head; current
// is false for the default values.
type modePage struct {
	code   byte
	values func(u *Unit, current bool) []byte
}

// modePages are in ascending order. There are no subpages. Nothing can be
// changed, so the changeable values are all zero, and nothing is saved.
var modePages = []modePage{
	{0x08, cachingPage},
	{0x0A, controlPage},
	{0x1C, exceptionsPage},
}

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
	if control == savedValues {
		return nil, check(illegalRequest, ascSavingNotSupported)
	}
	if subpage != 0 && subpage != allSubpages {
		return nil, invalidField(3, 7)
	}
	var b []byte
	for _, p := range modePages {
		if code == p.code || code == allPages {
			b = p.append(b, r.itl.unit, control)
		}
	}
	if b == nil {
		return nil, invalidField(2, 5)
	}
	return b, StatusGood
}

func (p modePage) append(b []byte, u *Unit, control byte) []byte {
	values := p.values(u, control == currentValues)
	if control == changeableValues {
		clear(values)
	}
	return append(append(b, p.code, byte(len(values))), values...)
}

// cachingPage is SBC-3 section 6.4.5.
func cachingPage(u *Unit, _ bool) []byte {
	const writeCacheEnabled = 1 << 2
	b := make([]byte, 18)
	if u.config.WriteCache {
		b[0] = writeCacheEnabled
	}
	return b
}

// controlPage is SPC-4 section 7.5.8. Commands are reordered without regard to
// what they do, which is queue algorithm modifier 1.
func controlPage(u *Unit, current bool) []byte {
	const (
		descriptorFormat = 1 << 2 // D_SENSE
		unrestricted     = 1 << 4
	)
	b := make([]byte, 10)
	if current && u.descriptorSense.Load() {
		b[0] = descriptorFormat
	}
	b[1] = unrestricted
	return b
}

// exceptionsPage is SPC-4 section 7.5.11: no informational exception is ever
// reported (MRIE zero).
func exceptionsPage(*Unit, bool) []byte { return make([]byte, 10) }
