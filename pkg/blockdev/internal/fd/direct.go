package fd

import "unsafe"

const (
	// bounceSize is the longest transfer through a bounce buffer, in bytes, and
	// maxBounces how many a device has at most.
	bounceSize = 256 << 10
	maxBounces = 16
)

// bounces are aligned buffers for direct I/O from and to memory that is not.
type bounces struct {
	align int
	free  chan []byte // nil stands for one not yet made
}

func newBounces(align int) *bounces {
	b := &bounces{align: align, free: make(chan []byte, maxBounces)}
	for range maxBounces {
		b.free <- nil
	}
	return b
}

// take waits for a buffer of bounceSize.
func (b *bounces) take() []byte {
	p := <-b.free
	if p != nil {
		return p
	}
	p = make([]byte, bounceSize+b.align)
	skip := b.align - int(uintptr(unsafe.Pointer(&p[0])))&(b.align-1) //nolint:gosec // an address, for its alignment
	return p[skip%b.align:][:bounceSize]
}

func (b *bounces) put(p []byte) { b.free <- p }

// fits says whether direct I/O takes p as it is, for an offset.
func (b *bounces) fits(p []byte, off int64) bool {
	return b.whole(p, off) && (len(p) == 0 || int(uintptr(unsafe.Pointer(&p[0])))&(b.align-1) == 0) //nolint:gosec // an address, for its alignment
}

// whole says whether p, at an offset, is made of whole units.
func (b *bounces) whole(p []byte, off int64) bool { return (off|int64(len(p)))&int64(b.align-1) == 0 }

// around is the offset of the unit that off lies in, and how many bytes from there on are
// the whole units of n bytes at off, as far as a buffer goes.
func (b *bounces) around(off int64, n int) (start int64, span int) {
	unit := int64(b.align)
	start = off - off%unit
	end := off + int64(n) + unit - 1
	return start, int(min(end-end%unit-start, bounceSize))
}

// pread is one read of the file; like the system call it may read less.
func (d *Device) pread(p []byte, off int64) (int, error) {
	if d.bounces == nil || d.bounces.fits(p, off) {
		return d.o.Calls.Pread(d.fd, p, off)
	}
	buf := d.bounces.take()
	defer d.bounces.put(buf)
	start, span := d.bounces.around(off, len(p))
	n, err := d.o.Calls.Pread(d.fd, buf[:span], start)
	if err != nil || n <= int(off-start) {
		return 0, err
	}
	return copy(p, buf[off-start:n]), nil
}

// pwrite is one write of the file; like the system call it may write less.
func (d *Device) pwrite(p []byte, off int64) (int, error) {
	return d.bounced(p, off, func(p []byte, off int64) (int, error) { return d.o.Calls.Pwrite(d.fd, p, off) })
}

// pwriteStable is the same for a handle of stable writes.
func (d *Device) pwriteStable(handle int, p []byte, off int64) (int, error) {
	return d.bounced(p, off, func(p []byte, off int64) (int, error) { return d.o.Calls.WriteStable(handle, p, off) })
}

// bounced writes p by write, through an aligned buffer where it must be one.
func (d *Device) bounced(p []byte, off int64, write func(p []byte, off int64) (int, error)) (int, error) {
	switch {
	case d.bounces == nil:
		return write(p, off)
	case !d.bounces.whole(p, off):
		return d.patch(p, off, write)
	}
	d.patching.RLock()
	defer d.patching.RUnlock()
	if d.bounces.fits(p, off) {
		return write(p, off)
	}
	buf := d.bounces.take()
	defer d.bounces.put(buf)
	return write(buf[:copy(buf, p)], off)
}

// patch writes what does not consist of whole units: it reads those that p lies in, and
// writes them with it. No other write is made meanwhile, which would be undone. patching
// comes before the buffers, as in bounced.
func (d *Device) patch(p []byte, off int64, write func(p []byte, off int64) (int, error)) (int, error) {
	d.patching.Lock()
	defer d.patching.Unlock()
	buf := d.bounces.take()
	defer d.bounces.put(buf)
	start, span := d.bounces.around(off, len(p))
	if _, err := d.read(buf[:span], start); err != nil {
		return 0, err
	}
	skew := int(off - start)
	copied := copy(buf[skew:span], p)
	n, err := write(buf[:span], start)
	if err != nil {
		return 0, err
	}
	return min(max(n-skew, 0), copied), nil
}
