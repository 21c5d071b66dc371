package scsi

import "context"

// decodeSynchronizeCache is SYNCHRONIZE CACHE(10) and (16), SBC-3 sections 5.22
// and 5.23. The range is checked and then the whole unit is synchronised. The
// IMMED bit is accepted; the answer still comes when the data is stable.
func decodeSynchronizeCache(r request) Command {
	lba, blocks := r.extent()
	if st := r.itl.unit.checkRange(lba, blocks); st.code != Good {
		return r.fail(st)
	}
	return Command{Kind: Exec}
}

func executeSynchronizeCache(_ context.Context, c Command, _ []byte) ([]byte, Status) {
	return nil, c.itl.flush()
}

// flush makes everything that was acknowledged stable. It fails for good for
// those whose writes an earlier flush lost.
func (l *itl) flush() Status {
	if err := l.unit.durability.flush(); err != nil {
		l.unit.config.Logger.Error("Flush failed", "err", err)
		return SenseInternalTargetFailure
	}
	return l.admitMedium()
}

// flushDirty is flush where anything is volatile.
func (l *itl) flushDirty() Status {
	if l.unit.durability.dirty() {
		return l.flush()
	}
	return StatusGood
}
