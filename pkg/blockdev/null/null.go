// Package null is a device that keeps nothing: writes vanish and reads are zeros, for
// measuring what is above it. In that it breaks the promise of a [blockdev.Device] that
// what was written is read back; in all else it keeps to it.
package null

import (
	"fmt"
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// Device keeps nothing. All methods may be called concurrently.
type Device struct {
	size      int64
	blockSize int
	closed    atomic.Bool
}

var (
	_ blockdev.Device       = (*Device)(nil)
	_ blockdev.NowaitReader = (*Device)(nil)
	_ blockdev.CachedWriter = (*Device)(nil)
	_ blockdev.SyncWriter   = (*Device)(nil)
	_ blockdev.Zeroer       = (*Device)(nil)
)

// New makes a device of size bytes, a positive multiple of blockSize, which is 512 to
// 4096; anything else is ErrInvalid.
func New(size int64, blockSize int) (*Device, error) {
	if err := blockdev.CheckBlockSize(blockSize); err != nil {
		return nil, fmt.Errorf("null: %w", err)
	}
	if size <= 0 || size%int64(blockSize) != 0 {
		return nil, fmt.Errorf("null: size %d is not a positive multiple of %d: %w", size, blockSize, blockdev.ErrInvalid)
	}
	return &Device{size: size, blockSize: blockSize}, nil
}

// check refuses what is not in the device, and all of a closed one.
func (d *Device) check(off, n int64) error {
	if d.closed.Load() {
		return fmt.Errorf("null: %w", blockdev.ErrClosed)
	}
	if err := blockdev.CheckRange(off, n, d.size); err != nil {
		return fmt.Errorf("null: %w", err)
	}
	return nil
}

// ReadAt fills p with zeros.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if err := d.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	clear(p)
	return len(p), nil
}

// ReadAtNowait is ReadAt: there is nothing to wait for.
func (d *Device) ReadAtNowait(p []byte, off int64) (int, error) { return d.ReadAt(p, off) }

// WritesToCache says so: there is nothing to wait for.
func (d *Device) WritesToCache() bool { return true }

// WriteAt forgets p.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if err := d.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteAtSync forgets p.
func (d *Device) WriteAtSync(p []byte, off int64) error {
	_, err := d.WriteAt(p, off)
	return err
}

// WriteZeroes has nothing to do: all is zeros.
func (d *Device) WriteZeroes(off, n int64) error { return d.check(off, n) }

// Sync has nothing to do.
func (d *Device) Sync() error { return d.check(0, 0) }

// Size is in bytes.
func (d *Device) Size() int64 { return d.size }

// BlockSize is the logical block length in bytes.
func (d *Device) BlockSize() int { return d.blockSize }

// Close ends it; a second call is ErrClosed.
func (d *Device) Close() error {
	if d.closed.Swap(true) {
		return fmt.Errorf("null: %w", blockdev.ErrClosed)
	}
	return nil
}
