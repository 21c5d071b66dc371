package scsi

import (
	"bytes"
	"context"
)

// maxWriteSameBytes is MAXIMUM WRITE SAME LENGTH of VPD page B0h.
const maxWriteSameBytes = 1 << 30

// zeroStepBytes is how much is unmapped or zeroed between two looks at the
// context.
const zeroStepBytes = 64 << 20

// Bits of byte 1 of WRITE SAME (SBC-3 section 5.45).
const (
	ndobBit       = 1 << 0 // WRITE SAME(16): no data, zeros
	obsoleteBits  = 1<<1 | 1<<2
	writeUnmapBit = 1 << 3
	anchorBit     = 1 << 4
)

// decodeWriteSame10 is WRITE SAME(10), SBC-3 section 5.44. Byte 1 has no NDOB:
// bit 0 is obsolete.
func decodeWriteSame10(r request) Command { return r.writeSame(false) }

// decodeWriteSame16 is WRITE SAME(16), SBC-3 section 5.45.
func decodeWriteSame16(r request) Command { return r.writeSame(r.cdb[1]&ndobBit != 0) }

// writeSame checks the CDB. No blocks means all to the end (WSNZ is zero), if
// those are no more than MAXIMUM WRITE SAME LENGTH.
func (r request) writeSame(noData bool) Command {
	u := r.itl.unit
	if st := r.writeSameFlags(); st.code != Good {
		return r.fail(st)
	}
	lba, blocks := r.extent()
	if st := u.checkRange(lba, max(blocks, 1)); st.code != Good {
		return r.fail(st)
	}
	if blocks == 0 {
		blocks = uint64(u.blocks.Load()) - lba
	}
	if blocks > u.inBlocks(maxWriteSameBytes) {
		return r.fail(invalidField(r.layout().count, 7))
	}
	c := Command{Kind: Exec, Dir: DataOut, Length: u.blockSize, fua: !u.writeCache()}
	c.offset, c.span = int64(lba)*u.blockSize, int64(blocks)*u.blockSize
	if noData {
		c.Dir, c.Length = NoData, 0
	}
	return c
}

func (r request) writeSameFlags() Status {
	flags := r.cdb[1]
	switch {
	case flags&protectMask != 0:
		return invalidField(1, 7)
	case flags&anchorBit != 0:
		return invalidField(1, 4)
	case flags&writeUnmapBit != 0 && !r.itl.unit.thin():
		return invalidField(1, 3)
	case flags&obsoleteBits != 0: // PBDATA and LBDATA change the data written
		return invalidField(1, 2)
	}
	return StatusGood
}

// executeWriteSame writes one block over and over, zeros the short way. With
// UNMAP the blocks are unmapped whatever the block sent: SBC-3 lets a unit with
// LBPRZ do so for zeros alone, but initiators and conformance suites have
// learnt from the targets in use (LIO, tgt, SCST), which go by the bit.
func executeWriteSame(ctx context.Context, c Command, params []byte) ([]byte, Status) {
	if int64(len(params)) < c.Length {
		return nil, check(illegalRequest, ascInvalidFieldInCommandIU)
	}
	u, block := c.itl.unit, params[:c.Length]
	var st Status
	switch {
	case c.cdb[1]&writeUnmapBit != 0:
		st = c.inSteps(ctx, zeroStepBytes, c.unmapStep)
	case u.zeroer != nil && isZero(block):
		st = c.inSteps(ctx, zeroStepBytes, c.zeroStep)
	default:
		st = c.repeat(ctx, block)
	}
	if st.code != Good {
		return nil, st
	}
	return nil, c.settle()
}

func (c *Command) zeroStep(at, n int64) Status {
	return c.change(at, n, func() error { return c.itl.unit.zeroer.WriteZeroes(at, n) })
}

// repeat writes the block all over the span; an empty one is zeros.
func (c *Command) repeat(ctx context.Context, block []byte) Status {
	buffer := scratch.Get().(*[]byte)
	defer scratch.Put(buffer)
	fill(*buffer, block)
	return c.inSteps(ctx, stepBytes, func(at, n int64) Status {
		return c.change(at, n, func() error {
			_, err := c.itl.unit.device.WriteAt((*buffer)[:n], at)
			return err
		})
	})
}

// fill repeats a pattern over b, the last one cut short where it does not fit; an
// empty one is zeros.
func fill(b, pattern []byte) {
	if len(pattern) == 0 {
		clear(b)
		return
	}
	for len(b) > 0 {
		b = b[copy(b, pattern):]
	}
}

func isZero(b []byte) bool {
	return len(bytes.TrimLeft(b, "\x00")) == 0
}
