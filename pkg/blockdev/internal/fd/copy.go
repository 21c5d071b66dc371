package fd

import (
	"errors"
	"fmt"
	"math"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// medium is how a Device is found behind what a backend embeds it in.
func (d *Device) medium() *Device { return d }

// CopyFrom copies inside the kernel. A file system that shares blocks between
// files (XFS, Btrfs) does so where the ranges are aligned to its blocks; another
// copies through the page cache.
func (d *Device) CopyFrom(src blockdev.Device, srcOff, dstOff, n int64) error {
	holder, ok := src.(interface{ medium() *Device })
	if !ok {
		return d.errCannotCopy(fmt.Errorf("the source is a %T", src))
	}
	from := holder.medium()
	if from == d && blockdev.Overlap(srcOff, dstOff, n) {
		return d.errCannotCopy(errors.New("the ranges overlap"))
	}
	leave, err := d.enterWith(from, srcOff, dstOff, n)
	if err != nil {
		return err
	}
	defer leave()
	return d.copyFrom(from, srcOff, dstOff, n)
}

// enterWith admits a call on two devices. They are entered by rank: a Close that
// waits keeps later calls out, and two copies in opposite directions with a Close
// on either side must not wait for each other.
func (d *Device) enterWith(from *Device, srcOff, dstOff, n int64) (leave func(), err error) {
	if from == d {
		// Once only: a second entry would wait for a Close that waits for
		// the first.
		if err := d.enter(dstOff, n); err != nil {
			return nil, err
		}
		if err := blockdev.CheckRange(srcOff, n, d.size.Load()); err != nil {
			d.life.RUnlock()
			return nil, fmt.Errorf("%s: %w", d.o.Name, err)
		}
		return d.life.RUnlock, nil
	}
	first, firstOff, second, secondOff := d, dstOff, from, srcOff
	if from.rank < d.rank {
		first, firstOff, second, secondOff = from, srcOff, d, dstOff
	}
	if err := first.enter(firstOff, n); err != nil {
		return nil, err
	}
	if err := second.enter(secondOff, n); err != nil {
		first.life.RUnlock()
		return nil, err
	}
	return func() { second.life.RUnlock(); first.life.RUnlock() }, nil
}

func (d *Device) copyFrom(from *Device, srcOff, dstOff, n int64) error {
	for n > 0 {
		done, err := d.o.Calls.CopyRange(from.fd, srcOff, d.fd, dstOff, int(min(n, math.MaxInt32)))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && refusesCopy(err):
			return d.errCannotCopy(err)
		case err != nil:
			return d.failed("copy", dstOff, n, err)
		case done == 0:
			// The source ends before its size: who reads it is told so.
			return d.errCannotCopy(errors.New("the source is shorter than it should be"))
		}
		srcOff, dstOff, n = srcOff+int64(done), dstOff+int64(done), n-int64(done)
	}
	return nil
}

// refusesCopy says that the kernel does not copy between these two, or not these
// ranges, which says nothing of reading the one and writing the other.
func refusesCopy(err error) bool {
	return isUnsupported(err) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) ||
		errors.Is(err, unix.ETXTBSY) || errors.Is(err, unix.EPERM)
}

func (d *Device) errCannotCopy(why error) error {
	return fmt.Errorf("%s: %w: %w", d.o.Name, blockdev.ErrCannotCopy, why)
}
