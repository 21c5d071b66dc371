package scsi

import "context"

// decodePrefetch is PRE-FETCH(10) and (16), SBC-3 sections 5.5 and 5.6. No
// blocks means all to the end.
func decodePrefetch(r request) Command {
	u := r.itl.unit
	lba, blocks := r.extent()
	if st := u.checkRange(lba, blocks); st.code != Good {
		return r.fail(st)
	}
	if blocks == 0 {
		blocks = uint64(u.blocks.Load()) - lba
	}
	return Command{Kind: Exec, offset: int64(lba) * u.blockSize, span: int64(blocks) * u.blockSize}
}

// executePrefetch begins to read the blocks and says GOOD, not CONDITION MET:
// nobody can promise that the cache will hold all of them.
func executePrefetch(_ context.Context, c Command, _ []byte) ([]byte, Status) {
	u := c.itl.unit
	if u.prefetcher == nil {
		return nil, StatusGood
	}
	if err := u.prefetcher.Prefetch(c.offset, c.span); err != nil {
		return nil, u.readFailed(err, c.offset)
	}
	return nil, StatusGood
}
