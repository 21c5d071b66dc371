package fd

import (
	"errors"
	"slices"
	"sync"
	"unsafe"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// Direct I/O waits for the medium. So that no thread has to for each read they go through
// Linux AIO (io_submit(2)), which containers may use where io_uring is forbidden to them.

// backgroundDepth is how many reads of a device are under way in the background. All
// processes of a machine have /proc/sys/fs/aio-max-nr together.
const backgroundDepth = 128

// background is the reads of a device that nobody waits for.
type background struct {
	context uint64                                         // the kernel's
	submits func(context uint64, all []*iocb) (int, error) // ioSubmit, or a test's

	mu      sync.Mutex
	idle    *sync.Cond // none is taken, and nobody reaps
	closed  bool
	rwFlags uint32 // RWF_NOWAIT where the file system knows it
	reads   [backgroundDepth]backgroundRead
	free    []int // in reads
	queued  []*iocb
	taken   int // that have not ended, in queued and in the kernel
	within  int // of them in the kernel
	reaps   bool
	events  [backgroundDepth]ioEvent // reap's
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
	b := &background{context: context, submits: ioSubmit, rwFlags: unix.RWF_NOWAIT}
	b.idle = sync.NewCond(&b.mu)
	for i := range b.reads {
		b.free = append(b.free, i)
	}
	_, err = ioSubmit(context, nil)
	_, eventsErr := ioGetEvents(context, 0, b.events[:])
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
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.free) == 0 {
		return false
	}
	i := b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	r := &b.reads[i]
	*r = backgroundRead{p: p, done: done, iocb: iocb{
		data: uint64(i), rwFlags: b.rwFlags, opcode: iocbPread, fd: uint32(d.fd), //nolint:gosec // a descriptor
		buf: uint64(uintptr(unsafe.Pointer(&p[0]))), n: uint64(len(p)), offset: off, //nolint:gosec // an address
	}}
	b.queued = append(b.queued, &r.iocb)
	b.taken++
	return true
}

// Submit begins what BeginRead has taken.
func (d *Device) Submit() {
	if b := d.background; b != nil {
		b.end(b.submit())
	}
}

// submit gives what is queued to the kernel, and returns what that refuses.
func (b *background) submit() (refused []ioEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queued) > 0 {
		n, err := b.submits(b.context, b.queued)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || n == 0: // of the first
			refused = append(refused, ioEvent{data: b.queued[0].data, result: -errnoOf(err)})
			n = 1
		default:
			b.within += n
		}
		b.queued = slices.Delete(b.queued, 0, n)
	}
	if b.within > 0 && !b.reaps {
		b.reaps = true
		go b.reap()
	}
	return refused
}

func errnoOf(err error) int64 {
	var errno unix.Errno
	_ = errors.As(err, &errno) // as system calls' are
	return int64(errno)
}

// reap tells of the reads that end, for as long as there are any.
func (b *background) reap() {
	for more := true; more; {
		n, err := ioGetEvents(b.context, 1, b.events[:])
		if err != nil { // a signal
			continue
		}
		b.end(b.events[:n])
		b.mu.Lock()
		b.within -= n
		if more = b.within > 0; !more {
			b.reaps = false
			b.idle.Broadcast()
		}
		b.mu.Unlock()
	}
}

// end tells of the end of reads, and gives their places to others.
func (b *background) end(events []ioEvent) {
	if len(events) == 0 {
		return
	}
	b.mu.Lock()
	for _, e := range events {
		if e.result == -int64(unix.EOPNOTSUPP) {
			b.rwFlags = 0
		}
	}
	b.mu.Unlock()
	for _, e := range events { // which nobody else touches
		r := &b.reads[e.data]
		r.done.ReadDone(e.result == int64(len(r.p)))
	}
	for _, e := range events {
		b.reads[e.data].done.Flush()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range events {
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
	for b.taken > 0 || b.reaps {
		b.idle.Wait()
	}
	if !wasClosed {
		ioDestroy(b.context)
	}
}
