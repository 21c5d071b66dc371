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

// fits says whether direct I/O takes p as it is.
func (b *bounces) fits(p []byte) bool {
	return len(p) == 0 || int(uintptr(unsafe.Pointer(&p[0])))&(b.align-1) == 0 //nolint:gosec // an address, for its alignment
}

// pread is one read of the file; like the system call it may read less.
func (d *Device) pread(p []byte, off int64) (int, error) {
	if d.bounces == nil || d.bounces.fits(p) {
		return d.o.Calls.Pread(d.fd, p, off)
	}
	buf := d.bounces.take()
	defer d.bounces.put(buf)
	n, err := d.o.Calls.Pread(d.fd, buf[:min(len(p), bounceSize)], off)
	if n > 0 {
		copy(p, buf[:n])
	}
	return n, err
}

// pwrite is one write of the file; like the system call it may write less.
func (d *Device) pwrite(p []byte, off int64) (int, error) {
	return d.bounced(p, func(p []byte) (int, error) { return d.o.Calls.Pwrite(d.fd, p, off) })
}

// pwriteStable is the same for a handle of stable writes.
func (d *Device) pwriteStable(handle int, p []byte, off int64) (int, error) {
	return d.bounced(p, func(p []byte) (int, error) { return d.o.Calls.WriteStable(handle, p, off) })
}

// bounced writes p by write, through an aligned buffer where it must be one.
func (d *Device) bounced(p []byte, write func([]byte) (int, error)) (int, error) {
	if d.bounces == nil || d.bounces.fits(p) {
		return write(p)
	}
	buf := d.bounces.take()
	defer d.bounces.put(buf)
	return write(buf[:copy(buf, p)])
}
