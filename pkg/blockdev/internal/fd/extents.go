package fd

import (
	"errors"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// Extent says whether the byte at off is in a hole of the file, and how far
// that goes on. What is allocated and was never written counts as a hole: it
// reads as zeros all the same.
func (d *Device) Extent(off int64) (mapped bool, n int64, err error) {
	if err := d.enter(off, 1); err != nil {
		return false, 0, err
	}
	defer d.life.RUnlock()
	end := d.size.Load()
	data, err := d.o.Calls.Seek(d.fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return false, end - off, nil
	case err != nil:
		return false, 0, d.failed("seek data", off, end-off, err)
	case data > off:
		return false, min(data, end) - off, nil
	}
	hole, err := d.o.Calls.Seek(d.fd, off, unix.SEEK_HOLE)
	if err != nil {
		return false, 0, d.failed("seek hole", off, end-off, err)
	}
	return true, min(hole, end) - off, nil
}

// Usage reads what the file occupies and what its file system has left.
func (d *Device) Usage() (blockdev.Space, error) {
	if err := d.enter(0, 0); err != nil {
		return blockdev.Space{}, err
	}
	defer d.life.RUnlock()
	var st unix.Stat_t
	var fs unix.Statfs_t
	err := unix.Fstat(d.fd, &st)
	if err == nil {
		err = unix.Fstatfs(d.fd, &fs)
	}
	if err != nil {
		return blockdev.Space{}, d.failed("space", 0, 0, err)
	}
	available := int64(fs.Bavail) * int64(fs.Bsize) //nolint:unconvert // 32 bits on some machines
	return blockdev.Space{Used: st.Blocks * 512, Available: available}, nil
}

// Prefetch tells the kernel to read [off, off+n) ahead.
func (d *Device) Prefetch(off, n int64) error {
	if err := d.enter(off, n); err != nil {
		return err
	}
	defer d.life.RUnlock()
	if n == 0 {
		return nil // to the kernel all of the file
	}
	if err := d.o.Calls.ReadAhead(d.fd, off, n); err != nil {
		return d.failed("prefetch", off, n, err)
	}
	return nil
}
