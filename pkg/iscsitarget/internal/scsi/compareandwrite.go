package scsi

import (
	"bytes"
	"context"
)

// maxCompareBytes is MAXIMUM COMPARE AND WRITE LENGTH of VPD page B0h.
const maxCompareBytes = 64 << 10

// decodeCompareAndWrite is COMPARE AND WRITE, SBC-3 section 5.2: the data is the
// blocks to compare with, then those to write.
func decodeCompareAndWrite(r request) Command {
	u := r.itl.unit
	lba, blocks := bigEndian(r.cdb[2:10]), uint64(r.cdb[13])
	if r.cdb[1]&protectMask != 0 {
		return r.fail(invalidField(1, 7))
	}
	if st := u.checkRange(lba, blocks); st.code != Good {
		return r.fail(st)
	}
	switch {
	case blocks > u.inBlocks(maxCompareBytes):
		return r.fail(invalidField(13, 7))
	case blocks == 0:
		// No error, unless data comes all the same: an initiator that meant
		// 256 blocks must not be told that they are written.
		return Command{Kind: Exec, Dir: DataOut, wrongLength: invalidField(13, 7)}
	}
	c := Command{Kind: Exec, Dir: DataOut, offset: int64(lba) * u.blockSize, span: int64(blocks) * u.blockSize}
	c.Length = 2 * c.span
	c.fua = r.cdb[1]&fuaBit != 0 || !u.writeCache()
	return c
}

// executeCompareAndWrite has the blocks for itself from the comparison to the
// write.
func executeCompareAndWrite(_ context.Context, c Command, params []byte) ([]byte, Status) {
	if int64(len(params)) < c.Length {
		return nil, check(illegalRequest, ascInvalidFieldInCommandIU)
	}
	if c.Length == 0 {
		return nil, StatusGood
	}
	if st := c.compareAndWrite(params[:c.span], params[c.span:c.Length]); st.code != Good {
		return nil, st
	}
	return nil, c.settle()
}

func (c *Command) compareAndWrite(compare, write []byte) Status {
	u := c.itl.unit
	u.guard.own(c.offset, c.span)
	defer u.guard.disown(c.offset, c.span)
	if st := c.itl.admitMedium(); st.code != Good {
		return st
	}
	buffer := scratch.Get().(*[]byte)
	defer scratch.Put(buffer)
	now := (*buffer)[:c.span]
	if n, err := u.device.ReadAt(now, c.offset); n < len(now) && err != nil {
		return u.readFailed(err, c.offset+int64(n))
	}
	if !bytes.Equal(now, compare) {
		return check(miscompare, ascMiscompareDuringVerify).withInfo(uint64(firstDifference(now, compare)))
	}
	return c.changeAlone(c.offset, c.span, func() error {
		_, err := u.device.WriteAt(write, c.offset)
		return err
	})
}
