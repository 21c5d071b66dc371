package scsi

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// maxAtomicBytes bounds an atomic write: its data must be in hand as a whole.
const maxAtomicBytes = MaxParameterLength

// writesAtomic says that the unit has atomic writes.
func (u *Unit) writesAtomic() bool { return u.atomicWriter != nil }

// atomicUnitBytes is the least that disks and the page cache write, whatever they
// say.
const atomicUnitBytes = 4096

// atomicUnit is ATOMIC ALIGNMENT and ATOMIC TRANSFER LENGTH GRANULARITY of VPD
// page B0h, in logical blocks. What is mended after a power cut is mended by
// writing, never by reading first: a disk that was cut off in the middle of one of
// its blocks may be unable to read what others had written to the rest of it.
func (u *Unit) atomicUnit() uint64 { return max(u.perPhysical(), u.inBlocks(atomicUnitBytes)) }

// atomicLimit is MAXIMUM ATOMIC TRANSFER LENGTH, with and without ATOMIC BOUNDARY,
// and MAXIMUM ATOMIC BOUNDARY SIZE.
func (u *Unit) atomicLimit() uint64 {
	blocks := u.inBlocks(int64(min(u.atomicWriter.AtomicLimit(), maxAtomicBytes)))
	return blocks - blocks%u.atomicUnit()
}

// decodeWriteAtomic is WRITE ATOMIC(16), SBC-4 sections 4.29 and 5.48. ATOMIC
// BOUNDARY allows the device server to write in several atomic pieces; one is as
// good.
func decodeWriteAtomic(r request) Command {
	u := r.itl.unit
	lba := bigEndian(r.cdb[2:10])
	boundary, blocks := uint64(binary.BigEndian.Uint16(r.cdb[10:])), uint64(binary.BigEndian.Uint16(r.cdb[12:]))
	if r.cdb[1]&protectMask != 0 {
		return r.fail(invalidField(1, 7))
	}
	if st := u.checkRange(lba, blocks); st.code != Good {
		return r.fail(st)
	}
	switch unit, limit := u.atomicUnit(), u.atomicLimit(); {
	case blocks > limit || blocks%unit != 0:
		return r.fail(invalidField(12, 7))
	case boundary > limit || boundary%unit != 0:
		return r.fail(invalidField(10, 7))
	case blocks == 0:
		return Command{}
	case lba%unit != 0:
		return r.fail(invalidField(2, 7))
	}
	c := Command{Kind: Exec, Dir: DataOut, offset: int64(lba) * u.blockSize, span: int64(blocks) * u.blockSize}
	c.Length = c.span
	return c
}

// executeWriteAtomic writes all of the data or nothing, stable also without FUA.
func executeWriteAtomic(_ context.Context, c Command, params []byte) ([]byte, Status) {
	if int64(len(params)) < c.Length {
		return nil, check(illegalRequest, ascInvalidFieldInCommandIU)
	}
	return nil, c.writeAtomic(params[:c.Length])
}

func (c *Command) writeAtomic(p []byte) Status {
	u := c.itl.unit
	u.guard.own(c.offset, c.span)
	defer u.guard.disown(c.offset, c.span)
	if st := c.itl.admitMedium(); st.code != Good {
		return st
	}
	u.tokens.changed(c.offset, c.span)
	u.atomics.begin(extent{c.offset, c.span})
	err := u.atomicWriter.WriteAtomic(p, c.offset)
	u.atomics.end()
	u.thresholds.poke()
	if errors.Is(err, blockdev.ErrLostWrites) {
		u.durability.probe()
	}
	if st := u.writeFailed(err, c.offset); st.code != Good {
		return st
	}
	return c.itl.admitMedium()
}
