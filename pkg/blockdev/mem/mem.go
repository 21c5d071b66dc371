// Package mem is a block device in the process's memory, for tests and for
// programs that embed the target. It takes memory for what was written only,
// and nothing of it survives Close.
package mem

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// atomicLimit is the longest atomic write in bytes, as that of the backends that
// keep a journal.
const atomicLimit = 256 << 10

// chunkSize is the allocation unit in bytes.
const chunkSize = 64 << 10

// Device is a sparse disk in memory. All methods may be called concurrently.
type Device struct {
	blockSize int

	mu     sync.RWMutex
	size   int64
	chunks map[int64]*[chunkSize]byte // by offset / chunkSize; absent: zeros
	mark   blockdev.VolatileMark
	state  json.RawMessage
	lost   error // why no Sync can be believed any more
	fail   error // what the next Sync fails with
	closed bool
}

var (
	_ blockdev.Device         = (*Device)(nil)
	_ blockdev.Unmapper       = (*Device)(nil)
	_ blockdev.Zeroer         = (*Device)(nil)
	_ blockdev.NowaitReader   = (*Device)(nil)
	_ blockdev.CachedWriter   = (*Device)(nil)
	_ blockdev.SyncWriter     = (*Device)(nil)
	_ blockdev.AtomicWriter   = (*Device)(nil)
	_ blockdev.VolatileMarker = (*Device)(nil)
	_ blockdev.StateKeeper    = (*Device)(nil)
	_ blockdev.RangeCopier    = (*Device)(nil)
)

// New makes a disk of size bytes, a positive multiple of blockSize, which is
// 512 to 4096; anything else is ErrInvalid.
func New(size int64, blockSize int) (*Device, error) {
	if err := checkSize(size, blockSize); err != nil {
		return nil, err
	}
	return &Device{blockSize: blockSize, size: size, chunks: map[int64]*[chunkSize]byte{}}, nil
}

func checkSize(size int64, blockSize int) error {
	if err := blockdev.CheckBlockSize(blockSize); err != nil {
		return fmt.Errorf("mem: %w", err)
	}
	if size <= 0 || size%int64(blockSize) != 0 {
		return fmt.Errorf("mem: size %d is not a positive multiple of %d: %w", size, blockSize, blockdev.ErrInvalid)
	}
	return nil
}

// ReadAt fills p.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	d.each(off, int64(len(p)), func(i, from, to, done int64) {
		if c := d.chunks[i]; c != nil {
			copy(p[done:], c[from:to])
		} else {
			clear(p[done : done+to-from])
		}
	})
	return len(p), nil
}

// WritesToCache says so: memory is all there is.
func (d *Device) WritesToCache() bool { return true }

// ReadAtNowait is ReadAt: memory never makes a reader wait.
func (d *Device) ReadAtNowait(p []byte, off int64) (int, error) { return d.ReadAt(p, off) }

// WriteAt writes all of p.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(off, int64(len(p))); err != nil {
		return 0, err
	}
	d.write(p, off)
	return len(p), nil
}

// write is for a caller that holds mu and has checked the range.
func (d *Device) write(p []byte, off int64) {
	d.each(off, int64(len(p)), func(i, from, to, done int64) {
		copy(d.chunk(i)[from:to], p[done:])
	})
}

// WriteAtSync is WriteAt, and fails as Sync would.
func (d *Device) WriteAtSync(p []byte, off int64) error {
	if _, err := d.WriteAt(p, off); err != nil {
		return err
	}
	return d.Sync()
}

// WriteAtomic is WriteAtSync, and changes nothing where that fails.
func (d *Device) WriteAtomic(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(p) > atomicLimit {
		return fmt.Errorf("mem: %d bytes are more than %d: %w", len(p), atomicLimit, blockdev.ErrInvalid)
	}
	err := d.check(off, int64(len(p)))
	if err == nil {
		err = d.sync()
	}
	if err == nil {
		d.write(p, off)
	}
	return err
}

// AtomicLimit is in bytes.
func (d *Device) AtomicLimit() int { return atomicLimit }

// Unmap gives whole chunks back and zeroes parts of chunks.
func (d *Device) Unmap(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(off, n); err != nil {
		return err
	}
	// Going through the chunks that exist keeps an unmap of a huge disk
	// as cheap as what was written to it.
	for i, c := range d.chunks {
		from, to := max(off-i*chunkSize, 0), min(off+n-i*chunkSize, chunkSize)
		switch {
		case from >= to:
		case from == 0 && to == chunkSize:
			delete(d.chunks, i)
		default:
			clear(c[from:to])
		}
	}
	return nil
}

// UnmapGranularity is the allocation unit in bytes.
func (d *Device) UnmapGranularity() int64 { return chunkSize }

// WriteZeroes makes the range read as zeros and allocates it.
func (d *Device) WriteZeroes(off, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(off, n); err != nil {
		return err
	}
	d.each(off, n, func(i, from, to, _ int64) { clear(d.chunk(i)[from:to]) })
	return nil
}

// CopyFrom copies from another disk in memory, chunk by chunk.
func (d *Device) CopyFrom(src blockdev.Device, srcOff, dstOff, n int64) error {
	from, ok := src.(*Device)
	if !ok || from == d && blockdev.Overlap(srcOff, dstOff, n) {
		return fmt.Errorf("mem: %w", blockdev.ErrCannotCopy)
	}
	if err := errors.Join(from.admits(srcOff, n), d.admits(dstOff, n)); err != nil {
		return err
	}
	var chunk [chunkSize]byte
	for n > 0 {
		part := chunk[:min(n, chunkSize)]
		if _, err := from.ReadAt(part, srcOff); err != nil {
			return err
		}
		if _, err := d.WriteAt(part, dstOff); err != nil {
			return err
		}
		srcOff, dstOff, n = srcOff+int64(len(part)), dstOff+int64(len(part)), n-int64(len(part))
	}
	return nil
}

// admits is check for a caller that does not hold mu.
func (d *Device) admits(off, n int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.check(off, n)
}

// Sync succeeds unless FailSync was called.
func (d *Device) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(0, 0); err != nil {
		return err
	}
	return d.sync()
}

// sync is Sync for a caller that holds mu.
func (d *Device) sync() error {
	if d.lost != nil {
		return d.lost
	}
	if d.fail != nil {
		d.lost = fmt.Errorf("mem: sync: %w", blockdev.ErrLostWrites)
		return fmt.Errorf("%w: %w", d.lost, d.fail)
	}
	return nil
}

// FailSync makes the next Sync fail with err and every later one with
// ErrLostWrites, as a disk that loses writes does.
func (d *Device) FailSync(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
}

// Size is in bytes.
func (d *Device) Size() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.size
}

// BlockSize is the logical block length in bytes.
func (d *Device) BlockSize() int { return d.blockSize }

// Grow makes the disk size bytes long; less than it has is ErrShrink.
func (d *Device) Grow(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := checkSize(size, d.blockSize); err != nil {
		return err
	}
	if size < d.size {
		return fmt.Errorf("mem: from %d to %d bytes: %w", d.size, size, blockdev.ErrShrink)
	}
	d.size = size
	return nil
}

// VolatileMark returns the mark.
func (d *Device) VolatileMark() (blockdev.VolatileMark, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.check(0, 0); err != nil {
		return blockdev.VolatileMark{}, err
	}
	return d.mark.Clone(), nil
}

// SetVolatileMark replaces the mark; it is as stable as this memory.
func (d *Device) SetVolatileMark(m blockdev.VolatileMark) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(0, 0); err != nil {
		return err
	}
	d.mark = m.Clone()
	return nil
}

// State returns the logical unit's state.
func (d *Device) State() (json.RawMessage, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.check(0, 0); err != nil {
		return nil, err
	}
	return slices.Clone(d.state), nil
}

// SetState replaces the state; it is as stable as this memory.
func (d *Device) SetState(state json.RawMessage) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(0, 0); err != nil {
		return err
	}
	if err := blockdev.ValidateState(state); err != nil {
		return fmt.Errorf("mem: %w", err)
	}
	d.state = nil
	if len(state) > 0 {
		d.state = slices.Clone(state)
	}
	return nil
}

// Close drops the memory; a second call is ErrClosed.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(0, 0); err != nil {
		return err
	}
	d.closed, d.chunks = true, nil
	return nil
}

// check is for a caller that holds mu.
func (d *Device) check(off, n int64) error {
	if d.closed {
		return fmt.Errorf("mem: %w", blockdev.ErrClosed)
	}
	if err := blockdev.CheckRange(off, n, d.size); err != nil {
		return fmt.Errorf("mem: %w", err)
	}
	return nil
}

// each calls f for every chunk of [off, off+n): its number, the part of it
// that the range covers, and how many bytes of the range came before.
func (d *Device) each(off, n int64, f func(i, from, to, done int64)) {
	for done := int64(0); done < n; {
		i, from := (off+done)/chunkSize, (off+done)%chunkSize
		to := min(from+n-done, chunkSize)
		f(i, from, to, done)
		done += to - from
	}
}

// chunk returns chunk i and allocates it where it is absent.
func (d *Device) chunk(i int64) *[chunkSize]byte {
	c := d.chunks[i]
	if c == nil {
		c = new([chunkSize]byte)
		d.chunks[i] = c
	}
	return c
}
