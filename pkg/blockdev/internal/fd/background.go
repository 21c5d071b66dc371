package fd

import (
	"errors"
	"sync"
	"time"
	"unsafe"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// Direct I/O waits for the medium. So that no thread has to for each read they go through
// Linux AIO (io_submit(2)), which containers may use where io_uring is forbidden to them.

// backgroundDepth is how many reads of a device are under way in the background. All
// processes of a machine have /proc/sys/fs/aio-max-nr together.
const backgroundDepth = 128

// reapDepth is how many of them are told of at once.
const reapDepth = 32

// reapPatience is how long the device's goroutine waits before it looks again: for the end
// of a read, of which others may have told, or for who attends to reads to tell of them.
const reapPatience = 20 * time.Millisecond

// background is the reads of a device that nobody waits for.
type background struct {
	context uint64                              // the kernel's
	submit  func(context uint64, r *iocb) error // ioSubmit, or a test's

	left chan struct{} // wakes reap: nobody attends any more

	mu       sync.Mutex
	idle     *sync.Cond // none is taken, and nobody reaps
	closed   bool
	taken    int    // reads that done was not told of
	reaping  int    // calls of Reap, and reap's
	rwFlags  uint32 // RWF_NOWAIT where the file system knows it
	reads    [backgroundDepth]backgroundRead
	free     []int // in reads
	attended bool  // who has begun reads is to call Reap or Leave
	reaps    bool  // reap is there
}

// backgroundRead keeps p in memory.
type backgroundRead struct {
	p    []byte
	done blockdev.ReadDone
	iocb iocb
}

var _ blockdev.BackgroundReader = (*Device)(nil)

// newBackground returns nil where not all that it needs is permitted.
func newBackground() *background {
	context, err := ioSetup(backgroundDepth)
	if err != nil {
		return nil
	}
	b := &background{context: context, submit: ioSubmit, rwFlags: unix.RWF_NOWAIT, left: make(chan struct{}, 1)}
	b.idle = sync.NewCond(&b.mu)
	for i := range b.reads {
		b.free = append(b.free, i)
	}
	err = ioSubmit(context, nil)
	_, eventsErr := ioGetEvents(context, 0, 0, make([]ioEvent, 1))
	if err != nil || eventsErr != nil {
		ioDestroy(context)
		return nil
	}
	return b
}

// BeginRead takes a read where the file is open with O_DIRECT, and p is as that wants it.
func (d *Device) BeginRead(p []byte, off int64, done blockdev.ReadDone) bool {
	b := d.background
	if b == nil || len(p) == 0 || !d.bounces.fits(p, off) || blockdev.CheckRange(off, int64(len(p)), d.size.Load()) != nil {
		return false
	}
	r, nowait := b.take(backgroundRead{p: p, done: done, iocb: iocb{
		opcode: iocbPread, fd: uint32(d.fd), //nolint:gosec // a descriptor
		buf: uint64(uintptr(unsafe.Pointer(&p[0]))), n: uint64(len(p)), offset: off, //nolint:gosec // an address
	}})
	if r == nil {
		return false
	}
	err := b.submit(b.context, &r.iocb)
	if err == nil {
		b.attend()
		return true
	}
	b.give([]ioEvent{{data: r.iocb.data, result: -errnoOf(err)}})
	if nowait && errors.Is(err, unix.EOPNOTSUPP) {
		return d.BeginRead(p, off, done) // without the flag, from now on
	}
	return false
}

// attend: the caller is to call Reap or Leave.
func (b *background) attend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attended = true
}

// take has a place for a read, or returns nil. It says whether the read has RWF_NOWAIT.
func (b *background) take(read backgroundRead) (r *backgroundRead, nowait bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.free) == 0 {
		return nil, false
	}
	i := b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	b.taken++
	read.iocb.data, read.iocb.rwFlags = uint64(i), b.rwFlags //nolint:gosec // an index
	b.reads[i] = read
	return &b.reads[i], b.rwFlags != 0
}

func errnoOf(err error) int64 {
	var errno unix.Errno
	_ = errors.As(err, &errno) // as system calls' are
	return int64(errno)
}

// Reap tells of what has ended.
func (d *Device) Reap() bool {
	b := d.background
	if b == nil || !b.enter() {
		return false
	}
	n := b.tell(0, 0)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.exit()
	return n > 0
}

// enter keeps the context, unless there is nothing to tell of.
func (b *background) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken == 0 {
		return false
	}
	b.reaping++
	return true
}

// exit lets go of it. b.mu is held.
func (b *background) exit() {
	if b.reaping--; b.reaping == 0 {
		b.idle.Broadcast()
	}
}

// tell tells of reads that have ended, how many it returns. It waits for least of them, and
// not longer than patience.
func (b *background) tell(least int, patience time.Duration) int {
	var events [reapDepth]ioEvent
	n, err := ioGetEvents(b.context, least, patience, events[:])
	if err != nil { // a signal
		return 0
	}
	b.end(events[:n])
	return n
}

// Leave has a goroutine wait for what is under way.
func (d *Device) Leave() {
	b := d.background
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attended = false
	switch {
	case b.reaps:
		select {
		case b.left <- struct{}{}:
		default:
		}
	case b.taken > 0:
		b.reaps = true
		b.reaping++
		go b.reap() // close waits for it
	}
}

// reap tells of the reads that end, for as long as there are any. While somebody attends
// to them it only looks now and then: who does may have come to wait for something else
// than what others have left.
func (b *background) reap() {
	for {
		b.mu.Lock()
		attended := b.attended
		if b.taken == 0 {
			b.reaps = false
			b.exit()
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		if !attended {
			b.tell(1, reapPatience)
			continue
		}
		select {
		case <-b.left:
		case <-time.After(reapPatience):
			b.tell(0, 0)
		}
	}
}

// end tells of the end of reads.
func (b *background) end(events []ioEvent) {
	var reads [reapDepth]*backgroundRead
	b.mu.Lock()
	for i, e := range events {
		reads[i] = &b.reads[e.data] // which nobody else touches
	}
	b.mu.Unlock()
	for i, e := range events {
		reads[i].done.ReadDone(e.result == int64(len(reads[i].p)))
	}
	for i := range events {
		reads[i].done.Flush()
	}
	b.give(events)
}

// give gives the places of reads that have ended to others.
func (b *background) give(events []ioEvent) {
	if len(events) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range events {
		if e.result == -int64(unix.EOPNOTSUPP) {
			b.rwFlags = 0
		}
		b.reads[e.data] = backgroundRead{}
		b.free = append(b.free, int(e.data)) //nolint:gosec // an index
	}
	if b.taken -= len(events); b.taken == 0 {
		b.idle.Broadcast()
	}
}

// close takes no more reads, and returns when there are none.
func (b *background) close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	wasClosed := b.closed
	b.closed = true
	for b.taken > 0 || b.reaping > 0 {
		b.idle.Wait()
	}
	if !wasClosed {
		ioDestroy(b.context)
	}
}
