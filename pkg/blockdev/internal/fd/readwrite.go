package fd

import (
	"errors"
	"fmt"
	"io"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// ReadAt fills p or fails.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if err := d.enter(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.life.RUnlock()
	return d.read(p, off)
}

// read is ReadAt for a caller that has entered.
func (d *Device) read(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := d.pread(p[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, d.failed("read", off, int64(len(p)), err)
		case n == 0:
			return done, d.errShort(off, len(p))
		default:
			done += n
		}
	}
	return done, nil
}

// errShort is for a file that ends before the size it is known to have:
// somebody cut it, and zeros in its place would be an invention.
func (d *Device) errShort(off int64, n int) error {
	return fmt.Errorf("%s: read of %d bytes at %d: the file is shorter than %d bytes: %w (%w)",
		d.o.Name, n, off, d.Size(), blockdev.ErrCorrupt, io.ErrUnexpectedEOF)
}

// ReadAtNowait reads what is in memory. It returns the bare ErrFetching or ErrWouldBlock,
// so that a miss costs no allocation.
func (d *Device) ReadAtNowait(p []byte, off int64) (int, error) {
	if err := d.enter(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.life.RUnlock()
	done := 0
	for done < len(p) {
		if d.noNowait.Load() {
			return done, blockdev.ErrWouldBlock
		}
		n, err := d.o.Calls.ReadNowait(d.fd, p[done:], off+int64(done))
		switch {
		case err == nil && n == 0:
			return done, d.errShort(off, len(p))
		case err == nil:
			done += n
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return done, d.fetch(off+int64(done), int64(len(p)-done))
		case isUnsupported(err):
			// The file system will not learn it while it is open.
			d.noNowait.Store(true)
		default:
			return done, d.failed("read", off, int64(len(p)), err)
		}
	}
	return done, nil
}

// fetch has what was not in memory be read.
func (d *Device) fetch(off, n int64) error {
	if !nowaitFetches() {
		if err := d.o.Calls.ReadAhead(d.fd, off, n); err != nil {
			return blockdev.ErrWouldBlock
		}
	}
	return blockdev.ErrFetching
}

// WritesToCache says that the page cache takes what is written.
func (d *Device) WritesToCache() bool { return d.o.Direct == 0 }

// WriteAt writes all of p or fails.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if err := d.enter(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer d.life.RUnlock()
	return d.write(p, off)
}

// write is WriteAt for a caller that has entered.
func (d *Device) write(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := d.writeSome(p[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, d.failed("write", off, int64(len(p)), err)
		case n == 0:
			return done, d.failed("write", off, int64(len(p)), io.ErrShortWrite)
		default:
			done += n
		}
	}
	return done, nil
}

const (
	// maxCachedWriters is how many writes to the page cache of a file are in the kernel at
	// once. It lets one of them on, and the others spin for a while, which two processors have
	// no time for: eight in there may come to little else.
	maxCachedWriters = 4
	// cachedPiece is how many bytes such a write has at most. The page cache takes it as one
	// piece, of which ext4 looks at each block whenever a part of it is written later.
	cachedPiece = 16 << 10
)

// writeSome is one write of the file; like the system call it may write less.
func (d *Device) writeSome(p []byte, off int64) (int, error) {
	if d.writers == nil {
		return d.pwrite(p, off)
	}
	d.writers <- struct{}{}
	defer func() { <-d.writers }()
	return d.o.Calls.Pwrite(d.fd, p[:min(len(p), cachedPiece)], off)
}
