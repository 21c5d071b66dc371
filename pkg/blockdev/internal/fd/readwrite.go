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
		n, err := d.pwrite(p[done:], off+int64(done))
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
