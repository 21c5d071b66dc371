package session

import (
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// What is here lets a connection's reader write to a device by itself. The page cache
// takes a write in microseconds: to hand it to a worker would cost as much again. But it
// may wait, for memory or behind a full disk, and nothing tells beforehand. So a reader
// that has not come back from such a call after a while is left to it, as a worker, and
// another goroutine reads on.

// watchInterval is how often a reader's call is looked at: one that is under way twice is
// left to it. It is longer than a thread that is ready usually waits for its processor.
const watchInterval = 5 * time.Millisecond

// reading is a goroutine that reads a connection, until it has lost it to another one.
// Its own alone.
type reading struct {
	pdu  pdu.PDU // what it has in hand
	over bool
}

// watch finds out when the reader of a connection does not come back from a call.
type watch struct {
	// calls counts beginnings and ends: odd while one is under way.
	calls atomic.Uint64
	armed atomic.Bool
	// slow: a call took too long, and no other is made for as long again.
	slow  atomic.Bool
	since time.Time // when it was found out
	timer *time.Timer
	seen  uint64 // the timer's own
}

// inPlace says that the reader, which calls it, may make a call by itself.
func (w *watch) inPlace() bool { return !w.slow.Load() }

// begin begins a call of the reader's.
func (w *watch) begin() (call uint64) {
	call = w.calls.Add(1)
	if w.armed.CompareAndSwap(false, true) {
		w.timer.Reset(watchInterval)
	}
	return call
}

// end ends it; false means that another goroutine has the connection now.
func (w *watch) end(call uint64) bool {
	if w.calls.CompareAndSwap(call, call+1) {
		return true
	}
	w.timer.Reset(time.Since(w.since) + watchInterval)
	return false
}

// look is what the timer does; takeOver has another goroutine read on.
func (w *watch) look(takeOver func()) {
	if w.slow.Load() {
		w.armed.Store(false)
		w.slow.Store(false)
		return
	}
	v := w.calls.Load()
	switch {
	case v%2 == 1 && v == w.seen:
		w.since = time.Now()
		w.slow.Store(true)
		if w.calls.CompareAndSwap(v, v+1) {
			takeOver()
			return
		}
		w.slow.Store(false)
	case v != w.seen:
		w.seen = v
		w.timer.Reset(watchInterval)
		return
	}
	// Nothing has happened since the last look, or a call has ended just now.
	w.armed.Store(false)
	if w.calls.Load()%2 == 1 && w.armed.CompareAndSwap(false, true) { // begin found it armed
		w.timer.Reset(watchInterval)
	}
}

// direct leaves immediate data where it is, for the reader to write it from there; false
// means that it cannot. Nothing else was taken in with the command, which is in its turn.
func (t *task) direct(req pdu.SCSICommand, immediate []byte) bool {
	n := min(int64(len(immediate)), t.out.want)
	if n == 0 || !req.Final || t.recoverable() || len(t.s.early) > 0 || !t.cmd.ToCache() || !t.cmd.WholeBlocks(0, n) || !t.conn.Load().watch.inPlace() {
		return false
	}
	t.s.mu.Lock()
	t.out.asked = n
	t.s.mu.Unlock()
	t.piece = piece{immediate[:n], 0}
	t.s.stats.BytesWritten.Add(uint64(len(immediate)))
	return true
}

// piece is data of a write that the reader has, until it reads on, and is to write from
// there: off is where in the task's data it lies.
type piece struct {
	data []byte
	off  int64
}

// goOn is what the reader does when it has taken something in for a task: it writes the
// piece, if there is one, and counts its call out. If the write took too long another
// goroutine reads by now, and this one is a worker.
func (t *task) goOn(c *Connection, p piece) {
	st := scsi.StatusGood
	if len(p.data) == 0 {
		t.step(t.finish(st))
		return
	}
	r := c.reading
	call := c.watch.begin()
	if !t.stopped() {
		st = t.cmd.WriteAt(p.data, p.off)
	}
	r.over = !c.watch.end(call)
	complete := t.finish(st)
	switch {
	case !r.over:
		t.step(complete)
	case complete:
		t.proceed(false)
	default:
		t.solicitNext()
	}
}

// stopped: the task has failed, or is aborted, and its data is of no use.
func (t *task) stopped() bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return t.aborted.Load() || t.out.stopped
}

// directPart is what the reader is to write itself of a burst that it did write so far.
func (c *Connection) directPart(b *burst, data []byte) piece {
	t := b.t
	off := b.start + b.got
	n := min(int64(len(data)), b.length-b.got, t.out.want-off)
	if n <= 0 || b.buf == nil || b.written != b.got || t.recoverable() || !t.cmd.ToCache() || !t.cmd.WholeBlocks(off, n) || !c.watch.inPlace() {
		return piece{}
	}
	b.written += n
	return piece{data[:n], off}
}
