package scsi

import (
	"encoding/binary"
	"math"
	"math/bits"
)

const (
	lbpmeBit = 1 << 7
	lbprzBit = 1 << 6
)

// decodeReadCapacity10 is READ CAPACITY(10), SBC-3 section 5.12. The medium has
// no substantial delay after any block, so PMI changes nothing.
func decodeReadCapacity10(r request) Command {
	const pmiBit = 1 << 0
	if lba := bigEndian(r.cdb[2:6]); lba != 0 && r.cdb[8]&pmiBit == 0 {
		return r.fail(invalidField(2, 7))
	}
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, uint32(min(r.itl.unit.lastLBA(), math.MaxUint32)))
	binary.BigEndian.PutUint32(b[4:], uint32(r.itl.unit.blockSize))
	return r.data(b, uint64(len(b)))
}

// decodeReadCapacity16 is READ CAPACITY(16), SBC-3 section 5.13.
func decodeReadCapacity16(r request) Command {
	u := r.itl.unit
	b := make([]byte, 32)
	binary.BigEndian.PutUint64(b, u.lastLBA())
	binary.BigEndian.PutUint32(b[8:], uint32(u.blockSize))
	b[13] = byte(bits.TrailingZeros64(u.perPhysical()))
	if u.thin() {
		b[14] = lbpmeBit | lbprzBit
	}
	return r.data(b, bigEndian(r.cdb[10:14]))
}

// perPhysical is the number of logical blocks in a physical one.
func (u *Unit) perPhysical() uint64 { return u.inBlocks(int64(u.config.PhysicalBlockSize)) }

// lastLBA is the address of the last block. An empty medium has none and says
// zero, as nothing else fits the field.
func (u *Unit) lastLBA() uint64 { return uint64(max(u.blocks.Load()-1, 0)) }
