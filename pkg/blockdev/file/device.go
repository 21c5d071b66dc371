package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/journal"
)

// device is an open volume on a file system that cannot punch holes.
type device struct {
	*fd.Device
	pool   *Pool
	volume *volume
	id     string
	// journal has WriteAtomic and the Recover that goes with it.
	journal *journal.Journal

	mark   sync.Mutex // serialises the volatile mark and the state; guards closed
	closed bool
}

// thinDevice is an open volume on a file system that can.
type thinDevice struct{ *device }

var (
	_ blockdev.VolatileMarker = (*device)(nil)
	_ blockdev.StateKeeper    = (*device)(nil)
	_ blockdev.StateLocator   = (*device)(nil)
	_ blockdev.NowaitReader   = (*device)(nil)
	_ blockdev.SyncWriter     = (*device)(nil)
	_ blockdev.Zeroer         = (*device)(nil)
	_ blockdev.AtomicWriter   = (*device)(nil)
	_ blockdev.Recoverer      = (*device)(nil)
	_ blockdev.RangeCopier    = (*device)(nil)
	_ blockdev.Unmapper       = thinDevice{}
	_ blockdev.Mapper         = thinDevice{}
	_ blockdev.Spacer         = thinDevice{}
)

// openDevice opens the volume's file, which must be as long as r says.
func (p *Pool) openDevice(v *volume, r blockdev.Record) (*device, error) {
	f, err := p.disk.openRegular(dataPath(r.ID), os.O_RDWR)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() < r.Size {
		err = fmt.Errorf("%s has %d bytes, its record says %d: %w", dataPath(r.ID), st.Size(), r.Size, blockdev.ErrCorrupt)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d := fd.New(f, fd.Options{
		Name:        "volume " + r.ID,
		Size:        r.Size,
		BlockSize:   r.BlockSize,
		Granularity: p.punch,
		Calls:       p.calls,
	})
	j, err := journal.Open(d, p.disk.journal(r.ID))
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return &device{Device: d, journal: j, pool: p, volume: v, id: r.ID}, nil
}

// Unmap punches a hole.
func (d thinDevice) Unmap(off, n int64) error { return d.Punch(off, n) }

// UnmapGranularity is the file system's block in bytes.
func (d thinDevice) UnmapGranularity() int64 { return d.PunchGranularity() }

// Space is the file's and its file system's.
func (d thinDevice) Space() (blockdev.Space, error) { return d.Usage() }

// Mapped knows the file's holes.
func (d thinDevice) Mapped(off int64) (bool, int64, error) { return d.Extent(off) }

// Close closes the file and lets the volume be opened again.
func (d *device) Close() error {
	d.mark.Lock()
	defer d.mark.Unlock()
	if d.closed {
		return d.errClosed()
	}
	d.closed = true
	err := errors.Join(d.journal.Close(), d.Device.Close())
	d.pool.mu.Lock()
	defer d.pool.mu.Unlock()
	d.volume.device = nil
	return err
}

func (d *device) errClosed() error {
	return fmt.Errorf("volume %s: %w", d.id, blockdev.ErrClosed)
}

// VolatileMark reads the mark from the disk.
func (d *device) VolatileMark() (blockdev.VolatileMark, error) {
	d.mark.Lock()
	defer d.mark.Unlock()
	if d.closed {
		return blockdev.VolatileMark{}, d.errClosed()
	}
	var f volatileFile
	err := d.pool.disk.read(volatilePath(d.id), &f)
	if errors.Is(err, fs.ErrNotExist) {
		return blockdev.VolatileMark{}, nil
	}
	if err != nil {
		return blockdev.VolatileMark{}, fmt.Errorf("volume %s: volatile mark: %w", d.id, err)
	}
	return f.VolatileMark, nil
}

// SetVolatileMark replaces the mark on the disk.
func (d *device) SetVolatileMark(m blockdev.VolatileMark) error {
	d.mark.Lock()
	defer d.mark.Unlock()
	if d.closed {
		return d.errClosed()
	}
	if err := d.pool.disk.writeMark(d.id, m); err != nil {
		return fmt.Errorf("volume %s: volatile mark: %w", d.id, fd.Errno(err))
	}
	return nil
}

func (d *disk) writeMark(id string, m blockdev.VolatileMark) error {
	if m.IsZero() {
		if err := d.retire(volatilePath(id)); err != nil {
			return err
		}
		return d.syncDir(volumePath(id))
	}
	b, err := encode(volatileFile{formatVersion, m})
	if err != nil {
		return err
	}
	return d.replace(volatilePath(id), b)
}
