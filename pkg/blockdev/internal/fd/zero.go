package fd

import (
	"errors"

	"golang.org/x/sys/unix"
)

// zeros is what ranges are zeroed with where the kernel cannot.
var zeros [256 << 10]byte

// Punch deallocates [off, off+n), which reads as zeros afterwards. The parts
// of a block at its ends are zeroed: for a regular file by the kernel
// (fallocate(2)), for a block device by writing. Where punching is not
// supported it writes zeros.
func (d *Device) Punch(off, n int64) error {
	return d.zero("unmap", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// WriteZeroes makes [off, off+n) read as zeros and keeps it allocated. Where
// the kernel cannot it writes the zeros.
func (d *Device) WriteZeroes(off, n int64) error {
	return d.zero("write zeroes", unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// Reserve takes the blocks for [off, off+n) from the file system, so that a write
// there needs none; what the range reads as does not change. Where that is not
// supported it does nothing.
func (d *Device) Reserve(off, n int64) error {
	if err := d.enter(off, n); err != nil {
		return err
	}
	defer d.life.RUnlock()
	for n > 0 {
		err := d.o.Calls.Fallocate(d.fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
		switch {
		case err == nil || isUnsupported(err):
			return nil
		case !errors.Is(err, unix.EINTR):
			return d.failed("reserve", off, n, err)
		}
	}
	return nil
}

func (d *Device) zero(call string, mode uint32, off, n int64) error {
	if err := d.enter(off, n); err != nil {
		return err
	}
	defer d.life.RUnlock()
	first, last := align(off, n, d.o.Alignment)
	if err := d.fill(off, first-off); err != nil {
		return err
	}
	if err := d.allocate(call, mode, first, last-first); err != nil {
		return err
	}
	return d.fill(last, off+n-last)
}

// align returns the aligned part [first, last) of [off, off+n); an empty one
// lies at the end of the range.
func align(off, n, unit int64) (first, last int64) {
	end := off + n
	first, last = off, end-end%unit
	if over := off % unit; over != 0 {
		first += min(unit-over, n)
	}
	if first >= last {
		return end, end
	}
	return first, last
}

func (d *Device) allocate(call string, mode uint32, off, n int64) error {
	if n == 0 {
		return nil
	}
	for {
		err := d.o.Calls.Fallocate(d.fd, mode, off, n)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case isUnsupported(err):
			return d.fill(off, n)
		default:
			return d.failed(call, off, n, err)
		}
	}
}

// fill writes n zeros at off.
func (d *Device) fill(off, n int64) error {
	for n > 0 {
		part := min(n, int64(len(zeros)))
		if _, err := d.write(zeros[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}
