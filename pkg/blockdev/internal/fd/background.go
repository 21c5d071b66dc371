package fd

import (
	"errors"
	"sync"
	"sync/atomic"
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

// reapPatience is how long the device's goroutine waits for the end of a read before it
// looks whether there is one that it is to wait for: others may have told of it.
const reapPatience = 20 * time.Millisecond

// background is the reads of a device that nobody waits for.
type background struct {
	context uint64                              // the kernel's
	submit  func(context uint64, r *iocb) error // ioSubmit, or a test's

	taken atomic.Int32 // that done was not told of

	mu       sync.Mutex
	idle     *sync.Cond // none is taken, and nobody reaps
	closed   bool
	rwFlags  uint32 // RWF_NOWAIT where the file system knows it
	reads    [backgroundDepth]backgroundRead
	free     []int // in reads
	attended bool  // who has begun reads is to call Reap or Leave
	reaps    bool  // reap does
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
	b := &background{context: context, submit: ioSubmit, rwFlags: unix.RWF_NOWAIT}
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
	r := b.take(backgroundRead{p: p, done: done, iocb: iocb{
		opcode: iocbPread, fd: uint32(d.fd), //nolint:gosec // a descriptor
		buf: uint64(uintptr(unsafe.Pointer(&p[0]))), n: uint64(len(p)), offset: off, //nolint:gosec // an address
	}})
	if r == nil {
		return false
	}
	err := b.submit(b.context, &r.iocb)
	if err != nil {
		b.give([]ioEvent{{data: r.iocb.data, result: -errnoOf(err)}})
	}
	return err == nil
}

// take has a place for a read, or returns nil.
func (b *background) take(read backgroundRead) *backgroundRead {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.free) == 0 {
		return nil
	}
	i := b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	b.taken.Add(1)
	b.attended = true
	read.iocb.data, read.iocb.rwFlags = uint64(i), b.rwFlags //nolint:gosec // an index
	b.reads[i] = read
	return &b.reads[i]
}

func errnoOf(err error) int64 {
	var errno unix.Errno
	_ = errors.As(err, &errno) // as system calls' are
	return int64(errno)
}

// Reap tells of what has ended.
func (d *Device) Reap() bool {
	b := d.background
	if b == nil || b.taken.Load() == 0 {
		return false
	}
	var events [reapDepth]ioEvent
	n, err := ioGetEvents(b.context, 0, 0, events[:])
	if err != nil { // closed meanwhile, or a signal
		return false
	}
	b.end(events[:n])
	return n > 0
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
	if b.taken.Load() > 0 && !b.reaps {
		b.reaps = true
		go b.reap() // close waits for it
	}
}

// reap tells of the reads that end, for as long as there are any and nobody else does.
func (b *background) reap() {
	var events [reapDepth]ioEvent
	for more := true; more; {
		n, err := ioGetEvents(b.context, 1, reapPatience, events[:])
		if err == nil { // no signal
			b.end(events[:n])
		}
		b.mu.Lock()
		if more = b.taken.Load() > 0 && !b.attended; !more {
			b.reaps = false
			b.idle.Broadcast()
		}
		b.mu.Unlock()
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
	if b.taken.Add(-int32(len(events))) == 0 { //nolint:gosec // backgroundDepth at most
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
	for b.taken.Load() > 0 || b.reaps {
		b.idle.Wait()
	}
	if !wasClosed {
		ioDestroy(b.context)
	}
}
