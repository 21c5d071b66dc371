package scsi

import (
	"errors"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// Bits of byte 1 of the READ, WRITE and VERIFY families (SBC-3 section 5).
const (
	protectMask = 0xE0 // RDPROTECT, WRPROTECT, VRPROTECT
	fuaBit      = 1 << 3
)

// decodeRead6 is READ(6), SBC-3 section 5.7: a transfer length of 0 is 256.
func decodeRead6(r request) Command {
	lba, blocks := r.extent6()
	return r.transfer(Read, DataIn, lba, blocks)
}

// decodeWrite6 is WRITE(6), SBC-3 section 5.31.
func decodeWrite6(r request) Command {
	lba, blocks := r.extent6()
	c := r.transfer(Write, DataOut, lba, blocks)
	c.store = true
	c.fua = !r.itl.unit.writeCache()
	return c
}

// decodeRead is READ(10), (12) and (16), SBC-3 sections 5.8 to 5.10.
func decodeRead(r request) Command {
	if r.cdb[1]&protectMask != 0 {
		return r.fail(invalidField(1, 7))
	}
	lba, blocks := r.extent()
	c := r.transfer(Read, DataIn, lba, blocks)
	c.fua = r.cdb[1]&fuaBit != 0
	return c
}

// decodeWrite is WRITE(10), (12) and (16), SBC-3 sections 5.32 to 5.34.
func decodeWrite(r request) Command {
	if r.cdb[1]&protectMask != 0 {
		return r.fail(invalidField(1, 7))
	}
	lba, blocks := r.extent()
	c := r.transfer(Write, DataOut, lba, blocks)
	c.store = true
	c.fua = r.cdb[1]&fuaBit != 0 || !r.itl.unit.writeCache()
	return c
}

func (r request) extent6() (lba, blocks uint64) {
	lba, blocks = r.extent()
	if blocks == 0 {
		blocks = 256
	}
	return lba, blocks
}

// transfer is a command that moves blocks: in range and at most MAXIMUM
// TRANSFER LENGTH of them. None is not an error.
func (r request) transfer(k Kind, d Direction, lba, blocks uint64) Command {
	u := r.itl.unit
	if st := u.checkRange(lba, blocks); st.code != Good {
		return r.fail(st)
	}
	if blocks > u.inBlocks(maxTransferBytes) {
		return r.fail(invalidField(r.layout().count, 7))
	}
	c := Command{Kind: k, Dir: d, offset: int64(lba) * u.blockSize, span: int64(blocks) * u.blockSize}
	c.Length = c.span
	if blocks == 0 {
		c.Kind, c.Dir = Done, NoData
	}
	return c
}

// checkRange refuses blocks beyond the end. No blocks at the end, not beyond it,
// is no error.
func (u *Unit) checkRange(lba, blocks uint64) Status {
	end := uint64(u.blocks.Load())
	if lba > end || blocks > end-lba {
		return check(illegalRequest, ascLBAOutOfRange)
	}
	return StatusGood
}

// inBlocks is a length in bytes as logical blocks.
func (u *Unit) inBlocks(n int64) uint64 { return uint64(n / u.blockSize) }

// admitPart asks what may have changed since Decode, and whether the part lies
// within the command.
func (c *Command) admitPart(k Kind, p []byte, off int64) Status {
	if c.Kind != k || off < 0 || int64(len(p)) > c.Length || off > c.Length-int64(len(p)) {
		return SenseInternalTargetFailure
	}
	return c.itl.admitMedium()
}

// admitMedium is asked again after Decode: writes may have been lost since, or
// the unit be erased.
func (l *itl) admitMedium() Status {
	if l.lost.Load() {
		return SenseInternalTargetFailure
	}
	return l.unit.admitChore()
}

func (c *Command) readAt(p []byte, off int64) Status {
	if st := c.admitPart(Read, p, off); st.code != Good {
		return st
	}
	u, at := c.itl.unit, c.offset+off
	next, n, err := u.read(p, at)
	if n < len(p) && err != nil {
		return u.readFailed(err, at+int64(n))
	}
	if c.torn(next, off) {
		return statusTorn
	}
	if !c.fua {
		return StatusGood
	}
	// Reading first makes the promise exact: whatever was read is stable.
	return c.itl.flushDirty()
}

func (c *Command) readAtNowait(p []byte, off int64) (Status, Readiness) {
	if st := c.admitPart(Read, p, off); st.code != Good {
		return st, Ready
	}
	u, at := c.itl.unit, c.offset+off
	if u.nowait == nil || c.fua && u.durability.dirty() {
		return StatusGood, Blocks
	}
	next, n, err := u.readNowait(p, at)
	switch {
	case n == len(p) && c.torn(next, off):
		return statusTorn, Ready
	case n == len(p):
		return StatusGood, Ready
	case errors.Is(err, blockdev.ErrFetching):
		return StatusGood, Fetching
	case errors.Is(err, blockdev.ErrWouldBlock) || err == nil:
		return StatusGood, Blocks
	}
	return u.readFailed(err, at+int64(n)), Ready
}

func (c *Command) beginRead(p []byte, done blockdev.ReadDone) bool {
	u := c.itl.unit
	if u.background == nil || c.fua && u.durability.dirty() || c.admitPart(Read, p, 0).code != Good {
		return false
	}
	next, quiet := u.atomics.now()
	c.lastRead = next
	return quiet && u.background.BeginRead(p, c.offset, done)
}

func (c *Command) writeAt(p []byte, off int64) Status {
	if st := c.admitPart(Write, p, off); st.code != Good {
		return st
	}
	if c.or {
		return c.orAt(p, c.offset+off)
	}
	if c.store {
		if st := c.storeAt(p, c.offset+off); st.code != Good {
			return st
		}
	}
	if c.verify {
		return c.verifyAt(p, c.offset+off)
	}
	return StatusGood
}

// storeAt writes to the medium, stable where that was asked for and the device
// can do it for a range alone.
func (c *Command) storeAt(p []byte, at int64) Status {
	u := c.itl.unit
	if c.fua && u.syncWriter != nil {
		u.guard.share(at, int64(len(p)))
		u.tokens.changed(at, int64(len(p)))
		err := u.syncWriter.WriteAtSync(p, at)
		u.guard.unshare(at, int64(len(p)))
		u.thresholds.poke()
		if err != nil {
			u.durability.probe()
		}
		return u.writeFailed(err, at)
	}
	return c.change(at, int64(len(p)), func() error {
		_, err := u.device.WriteAt(p, at)
		return err
	})
}

// change runs what changes [at, at+n) of the medium and is not stable when it
// returns.
func (c *Command) change(at, n int64, f func() error) Status {
	g := &c.itl.unit.guard
	g.share(at, n)
	defer g.unshare(at, n)
	return c.changeAlone(at, n, f)
}

// changeAlone is change for a caller that has the blocks for itself.
func (c *Command) changeAlone(at, n int64, f func() error) Status {
	u := c.itl.unit
	u.tokens.changed(at, n)
	if err := u.durability.begin(!c.fua); errors.Is(err, blockdev.ErrNoSpace) {
		return u.writeFailed(err, at)
	} else if err != nil {
		u.config.Logger.Error("Cannot mark the volume before a volatile write", "err", err)
		return SenseInternalTargetFailure
	}
	defer u.durability.end()
	defer u.thresholds.poke()
	return u.writeFailed(f(), at)
}

func (c *Command) finish() Status {
	if c.Kind != Write {
		return SenseInternalTargetFailure
	}
	if c.or || c.store && c.itl.unit.syncWriter == nil {
		return c.settle()
	}
	return c.itl.admitMedium()
}

// settle makes what the command changed stable, where it promised that.
func (c *Command) settle() Status {
	var err error
	if c.fua {
		err = c.itl.unit.durability.flush()
	}
	if st := c.itl.admitMedium(); st.code != Good {
		return st
	}
	return c.itl.unit.writeFailed(err, c.offset)
}

// readFailed is the status for a failed read at a byte of the medium.
func (u *Unit) readFailed(err error, at int64) Status {
	if errors.Is(err, blockdev.ErrOutOfRange) {
		return check(illegalRequest, ascLBAOutOfRange)
	}
	u.config.Logger.Error("Read failed", "offset", at, "err", err)
	return check(mediumError, ascUnrecoveredReadError).withInfo(uint64(at / u.blockSize))
}

// writeFailed is the status for a write, at a byte of the medium, that ended
// with err: GOOD for nil.
func (u *Unit) writeFailed(err error, at int64) Status {
	switch {
	case err == nil:
		return StatusGood
	case errors.Is(err, blockdev.ErrOutOfRange):
		return check(illegalRequest, ascLBAOutOfRange)
	case errors.Is(err, blockdev.ErrNoSpace):
		return check(dataProtect, ascSpaceAllocationFailed)
	}
	u.config.Logger.Error("Write failed", "offset", at, "err", err)
	if errors.Is(err, blockdev.ErrLostWrites) {
		return SenseInternalTargetFailure
	}
	return check(mediumError, ascWriteError).withInfo(uint64(at / u.blockSize))
}
