package scsi

import (
	"context"
	"errors"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// copyStepBytes is how much the backend is asked to copy by itself between two
// looks at the context.
const copyStepBytes = 16 << 20

// admitCopy asks whether a third-party copy through this nexus may read
// (readsMedium) or write (writesMedium) the unit now, as a READ or a WRITE of the
// same nexus would be asked: it is the one place where reservations, write
// protection and lost writes are looked at for a copy, before it begins and
// again before each step. A unit that was taken away meanwhile, or whose nexus is
// gone, is not reached any more.
func (l *itl) admitCopy(a access) Status {
	if !l.nexus.sees(l) {
		return check(copyAborted, ascCopyTargetNotReachable)
	}
	as := [16]byte{0x88} // READ(16)
	if a >= writesMedium {
		as[0] = 0x8A // WRITE(16)
	}
	if l.unit.reservations.Load().conflict(l, findOperation(&as), &as) {
		return StatusReservationConflict
	}
	if st := l.unit.admitChore(); st.code != Good {
		return st
	}
	return l.admit(a)
}

func (n *Nexus) sees(l *itl) bool {
	for _, seen := range *n.luns.Load() {
		if seen == l {
			return true
		}
	}
	return false
}

// copyJob moves blocks from one unit to another, or within one, for one nexus.
type copyJob struct {
	from *itl
	// to is a command on the destination: what it changes is marked, flushed
	// and guarded as that of any other command.
	to Command
	// plain: the backend does not copy by itself.
	plain bool
	// valid, where set, says after each step whether what was read is still
	// what was promised.
	valid func() Status
	// moved is told of each step.
	moved func(n int64)
}

// onto is the command as one that writes to another unit of its nexus, by that
// unit's write cache.
func (c *Command) onto(l *itl) Command {
	to := *c
	to.itl, to.fua = l, !l.unit.writeCache()
	return to
}

// copyRange copies n bytes. Ranges of one unit that overlap arrive as they were:
// it begins at the end that is overwritten first.
func (j *copyJob) copyRange(ctx context.Context, src, dst, n int64) Status {
	backwards := j.from.unit == j.to.itl.unit && src < dst
	j.to.offset = dst
	for done := int64(0); done < n; {
		if ctx.Err() != nil {
			return StatusTaskAborted
		}
		if st := j.admit(); st.code != Good {
			return st
		}
		size, hole := min(j.stepBytes(), n-done), false
		at := done
		if backwards {
			at = n - done - size
		} else {
			size, hole = j.look(src+at, size)
		}
		st, moved := j.step(src+at, dst+at, size, hole)
		if st.code != Good {
			return st
		}
		if moved {
			done += size
			j.moved(size)
		}
	}
	return StatusGood
}

func (j *copyJob) admit() Status {
	if st := j.from.admitCopy(readsMedium); st.code != Good {
		return st
	}
	return j.to.itl.admitCopy(writesMedium)
}

func (j *copyJob) stepBytes() int64 {
	if j.plain || j.to.itl.unit.copier == nil {
		return stepBytes
	}
	return copyStepBytes
}

// holeBytes is the shortest hole that is looked for, and what steps over holes
// and data are multiples of, so that no block is cut.
const holeBytes = 1 << 20

// look says how much of the n bytes at src the next step takes, and whether that
// is a hole, which stays one in a destination that is thin, too. Where nobody
// knows it is data.
func (j *copyJob) look(src, n int64) (size int64, hole bool) {
	from, to := j.from.unit, j.to.itl.unit
	if from.mapper == nil || !to.thin() {
		return n, false
	}
	mapped, run, err := from.mapper.Mapped(src)
	run = min(run, n)
	switch {
	case err != nil:
		return n, false // who reads it is told what is wrong
	case mapped:
		return min(n, (run+holeBytes-1)/holeBytes*holeBytes), false
	case run == n:
		return n, true
	case run < holeBytes:
		return min(n, holeBytes), false
	}
	return run / holeBytes * holeBytes, true
}

// step copies one part; false says that it must be done in smaller ones, by
// reading and writing.
func (j *copyJob) step(src, dst, n int64, hole bool) (st Status, moved bool) {
	if hole {
		st = j.to.unmapStep(dst, n)
	} else if j.plain || j.to.itl.unit.copier == nil {
		st = j.readAndWrite(src, dst, n)
	} else if st = j.offload(src, dst, n); j.plain {
		return st, false
	}
	if st.code == Good && j.valid != nil {
		st = j.valid()
	}
	return st, true
}

// offload lets the backend copy. Where it cannot, the job is plain from then on.
func (j *copyJob) offload(src, dst, n int64) Status {
	return j.from.unit.steady(src, n, func() Status { return j.copyInside(src, dst, n) })
}

func (j *copyJob) copyInside(src, dst, n int64) Status {
	u := j.to.itl.unit
	return j.to.change(dst, n, func() error {
		err := u.copier.CopyFrom(j.from.unit.device, src, dst, n)
		if errors.Is(err, blockdev.ErrCannotCopy) {
			j.plain = true
			return nil
		}
		return err
	})
}

func (j *copyJob) readAndWrite(src, dst, n int64) Status {
	buffer := scratch.Get().(*[]byte)
	defer scratch.Put(buffer)
	p := (*buffer)[:n]
	u := j.from.unit
	if _, k, err := u.read(p, src); k < len(p) && err != nil {
		return u.readFailed(err, src+int64(k))
	}
	return j.to.change(dst, n, func() error {
		_, err := j.to.itl.unit.device.WriteAt(p, dst)
		return err
	})
}
