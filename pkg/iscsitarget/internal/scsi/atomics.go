package scsi

import (
	"sync"
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// recentAtomics is how many atomic writes a unit remembers.
const recentAtomics = 32

// atomics lets reads find out whether they saw a part of an atomic write: those
// do not take the guard. As long as none is under way, which two atomic loads
// tell, a read just reads; one that met an atomic write of its blocks reads once
// more, under the guard.
//
// An atomic write begins when it has the guard for its blocks, and ends before it
// gives them back.
type atomics struct {
	begun, ended atomic.Int64

	mu     sync.Mutex
	recent [recentAtomics]extent // by their number, the value of begun before
}

func (a *atomics) begin(e extent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.recent[a.begun.Load()%recentAtomics] = e
	a.begun.Add(1)
}

func (a *atomics) end() { a.ended.Add(1) }

// now is the number of the next atomic write, and whether none is under way.
func (a *atomics) now() (next int64, quiet bool) {
	ended := a.ended.Load() // before begun: equal means that none is
	next = a.begun.Load()
	return next, next == ended
}

// met says whether an atomic write that began since is of some of [at, at+n).
func (a *atomics) met(since, at, n int64) bool {
	return a.begun.Load() != since && a.any(since, extent{at, n}.meets)
}

// split says whether an atomic write that began since has bytes on either side of
// a place of the medium.
func (a *atomics) split(since, at int64) bool {
	return a.begun.Load() != since && a.any(since, func(e extent) bool { return e.at < at && at < e.at+e.length })
}

// any says whether f is true of an atomic write that began since, or of one that
// nobody remembers.
func (a *atomics) any(since int64, f func(extent) bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	begun := a.begun.Load()
	if begun-since > recentAtomics {
		return true
	}
	for i := since; i < begun; i++ {
		if f(a.recent[i%recentAtomics]) {
			return true
		}
	}
	return false
}

// read is the device's ReadAt, which sees all of an atomic write or nothing. The
// caller does not hold the guard. It returns the number of the atomic write that
// would be the next when it read.
func (u *Unit) read(p []byte, at int64) (next int64, n int, err error) {
	length := int64(len(p))
	next, quiet := u.atomics.now()
	if quiet {
		n, err = u.device.ReadAt(p, at)
		if !u.atomics.met(next, at, length) {
			return next, n, err
		}
	}
	u.guard.share(at, length)
	defer u.guard.unshare(at, length)
	next, _ = u.atomics.now()
	n, err = u.device.ReadAt(p, at)
	return next, n, err
}

// readNowait is read, but does not wait for an atomic write either.
func (u *Unit) readNowait(p []byte, at int64) (next int64, n int, err error) {
	next, quiet := u.atomics.now()
	if quiet {
		n, err = u.nowait.ReadAtNowait(p, at)
	}
	if !quiet || u.atomics.met(next, at, int64(len(p))) {
		return next, 0, blockdev.ErrWouldBlock
	}
	return next, n, err
}

// steady runs f, which reads [at, at+n) in a way of its own and may do so several
// times, until no atomic write of these blocks came in between.
func (u *Unit) steady(at, n int64, f func() Status) Status {
	for {
		next, quiet := u.atomics.now()
		if !quiet {
			u.guard.wait(at, n)
		}
		if st := f(); !u.atomics.met(next, at, n) {
			return st
		}
	}
}

// torn says, after one part of a Read was read, whether an atomic write came
// between it and the part before and is in both. SBC-4 section 4.29.3.2 lets the
// read end then.
func (c *Command) torn(next, off int64) bool {
	since := c.lastRead
	c.lastRead = next
	return off > 0 && c.itl.unit.atomics.split(since, c.offset+off)
}

// statusTorn is OVERLAPPING ATOMIC COMMAND IN PROGRESS.
var statusTorn = check(abortedCommand, ascOverlappingAtomic)
