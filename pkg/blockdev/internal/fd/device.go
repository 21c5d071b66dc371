// Package fd is random-access I/O on one open file or block device: what the
// backends that lie on a file descriptor have in common.
//
// A [Device] has every capability; a backend shows those that are honest for
// its medium by wrapping it.
package fd

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// Options describe the medium of a Device.
type Options struct {
	// Name stands in front of every error.
	Name string
	// Size is the medium's usable size in bytes.
	Size int64
	// BlockSize is the logical block length in bytes.
	BlockSize int
	// Granularity is the allocation unit in bytes.
	Granularity int64
	// Alignment is what fallocate demands of offsets and lengths: 1 (or 0)
	// for a regular file, the logical block of a block device.
	Alignment int64
	// Direct says that the file was opened with O_DIRECT, and is what that
	// demands of offsets, lengths and the memory's address, in bytes: a power of
	// two, of which Size is a multiple. What does not meet it costs a copy, and a
	// write of parts of units a read. 0: it was not.
	Direct int
	// Calls are the system calls; the zero value is the kernel's.
	Calls Calls
}

// Device does I/O on an open file. All methods may be called concurrently.
type Device struct {
	o    Options
	file *os.File
	fd   int
	// rank orders the devices of the process, for whoever holds two of them.
	rank int64
	size atomic.Int64

	// life is read-held by every call in flight, so that Close returns
	// after the last of them and no call ever sees a reused descriptor.
	life   sync.RWMutex
	closed bool

	flush  flush
	stable *handles

	noNowait atomic.Bool

	// writers has those that write to the page cache of a regular file; it is nil for other
	// files, and with Direct.
	writers chan struct{}

	// Without Direct these are nil; background is too where there is none to be had.
	bounces    *bounces
	background *background
	// patching is held by a write that reads first, and shared by the others.
	patching sync.RWMutex
}

var (
	_ blockdev.Device       = (*Device)(nil)
	_ blockdev.Zeroer       = (*Device)(nil)
	_ blockdev.NowaitReader = (*Device)(nil)
	_ blockdev.SyncWriter   = (*Device)(nil)
	_ blockdev.CachedWriter = (*Device)(nil)
	_ blockdev.Recoverer    = (*Device)(nil)
	_ blockdev.Prefetcher   = (*Device)(nil)
	_ blockdev.RangeCopier  = (*Device)(nil)
)

// ranks counts the devices that were made.
var ranks atomic.Int64

// New makes a Device of f, which it owns from then on.
func New(f *os.File, o Options) *Device {
	o.Calls = o.Calls.orKernel()
	o.Alignment = max(o.Alignment, 1)
	// Fd also puts the file into blocking mode, which regular files and
	// block devices are in anyway.
	d := &Device{o: o, file: f, fd: int(f.Fd()), rank: ranks.Add(1)}
	d.size.Store(o.Size)
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && o.Direct == 0 {
		d.writers = make(chan struct{}, maxCachedWriters)
	}
	flag := 0
	if o.Direct > 0 {
		flag = unix.O_DIRECT
		d.noNowait.Store(true) // a read past the page cache waits, always
		d.bounces = newBounces(o.Direct)
		d.background = newBackground()
	}
	d.stable = newHandles(d.fd, flag)
	return d
}

// Size is in bytes.
func (d *Device) Size() int64 { return d.size.Load() }

// SetSize tells the device that its file has grown.
func (d *Device) SetSize(n int64) { d.size.Store(n) }

// BlockSize is the logical block length in bytes.
func (d *Device) BlockSize() int { return d.o.BlockSize }

// PunchGranularity is the allocation unit in bytes.
func (d *Device) PunchGranularity() int64 { return d.o.Granularity }

// Close waits for the calls in flight and closes the file; a second call is
// ErrClosed.
func (d *Device) Close() error {
	d.background.close()
	d.life.Lock()
	defer d.life.Unlock()
	if d.closed {
		return d.errClosed()
	}
	d.closed = true
	d.stable.close()
	return d.file.Close()
}

// enter admits a call on [off, off+n); the caller calls d.life.RUnlock after
// nil.
func (d *Device) enter(off, n int64) error {
	d.life.RLock()
	err := blockdev.CheckRange(off, n, d.size.Load())
	switch {
	case d.closed:
		err = d.errClosed()
	case err != nil:
		err = fmt.Errorf("%s: %w", d.o.Name, err)
	default:
		return nil
	}
	d.life.RUnlock()
	return err
}

func (d *Device) errClosed() error {
	return fmt.Errorf("%s: %w", d.o.Name, blockdev.ErrClosed)
}

// failed dresses an error of a system call; a full medium becomes ErrNoSpace.
func (d *Device) failed(call string, off, n int64, err error) error {
	return fmt.Errorf("%s: %s of %d bytes at %d: %w", d.o.Name, call, n, off, Errno(err))
}

// Errno adds ErrNoSpace to the errors of a full file system, an exhausted
// quota and a file that may grow no further; it leaves others, and nil, alone.
func Errno(err error) error {
	for _, full := range []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG} {
		if errors.Is(err, full) {
			return fmt.Errorf("%w: %w", blockdev.ErrNoSpace, err)
		}
	}
	return err
}
