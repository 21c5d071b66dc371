package scsi

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

var errDisk = errors.New("disk on fire")

// disk is a Device whose power can be cut: what no Sync wrote down is gone
// then. A Sync that fails drops what was dirty, as the page cache does, and the
// next one succeeds: the worst that a backend could do.
type disk struct {
	mu          sync.Mutex
	block       int
	now, stable []byte
	dirty       map[int]bool // by 512 bytes

	syncs, marks int
	mark         blockdev.VolatileMark
	state        json.RawMessage
	syncErr      error // of the next Sync
	markErr      error // of every SetVolatileMark
	readErr      error
	writeErr     error
	// syncing, where set, is told of each Sync, which then waits for it.
	syncing chan chan struct{}
	// writing is called before each write.
	writing func()
}

func newDisk(blocks, block int) *disk {
	size := blocks * block
	d := &disk{block: block, now: make([]byte, size), stable: make([]byte, size), dirty: map[int]bool{}}
	for i := range d.now {
		d.now[i] = byte(i/512) ^ byte(i*7) | 1
	}
	copy(d.stable, d.now)
	return d
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readErr != nil {
		return 512, d.readErr
	}
	if off+int64(len(p)) > int64(len(d.now)) {
		return 0, blockdev.ErrOutOfRange
	}
	return copy(p, d.now[off:]), nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.writing != nil {
		d.writing()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.write(p, off)
}

func (d *disk) write(p []byte, off int64) (int, error) {
	if d.writeErr != nil {
		return 0, d.writeErr
	}
	if off+int64(len(p)) > int64(len(d.now)) {
		return 0, blockdev.ErrOutOfRange
	}
	for i := off / 512; i*512 < off+int64(len(p)); i++ {
		d.dirty[int(i)] = true
	}
	return copy(d.now[off:], p), nil
}

func (d *disk) Sync() error {
	if d.syncing != nil {
		hold := make(chan struct{})
		d.syncing <- hold
		<-hold
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	err := d.syncErr
	d.syncErr = nil
	for i := range d.dirty {
		if err == nil {
			copy(d.stable[i*512:], d.now[i*512:(i+1)*512])
		}
	}
	clear(d.dirty)
	return err
}

func (d *disk) powerCut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.now, d.stable)
	clear(d.dirty)
}

func (d *disk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *disk) markNow() blockdev.VolatileMark {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mark
}

func (d *disk) Size() int64    { return int64(len(d.now)) }
func (d *disk) BlockSize() int { return d.block }
func (d *disk) Close() error   { return nil }

// The optional interfaces, each a type of its own so that a test has the device
// with and without.
type (
	atomicDisk struct {
		*disk
		atomicWrites
	}
	thinDisk   struct{ *disk }
	mappedDisk struct{ thinDisk }
	keptDisk   struct{ *disk }
	zeroDisk   struct{ *disk }
	syncDisk   struct{ *disk }
	markedDisk struct{ *disk }
	nowaitDisk struct {
		*disk
		cold *error
	}
)

func (d thinDisk) Unmap(off, n int64) error {
	_, err := d.WriteAt(make([]byte, n), off)
	return err
}

func (d thinDisk) UnmapGranularity() int64 { return 65536 }

// Mapped takes 512 zeros for a hole.
func (d mappedDisk) Mapped(off int64) (mapped bool, n int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readErr != nil {
		return false, 0, d.readErr
	}
	at := off - off%512
	mapped = !isZero(d.now[at : at+512])
	end := at
	for end < int64(len(d.now)) && isZero(d.now[end:end+512]) == !mapped {
		end += 512
	}
	return mapped, end - off, nil
}

func (d mappedDisk) Space() (blockdev.Space, error) {
	return blockdev.Space{Used: 3 << 20, Available: 5<<20 + 1}, d.readErr
}

func (d keptDisk) State() (json.RawMessage, error) { return d.state, nil }

func (d keptDisk) SetState(s json.RawMessage) error {
	if d.markErr != nil {
		return d.markErr
	}
	d.state = s
	return nil
}

func (d zeroDisk) WriteZeroes(off, n int64) error {
	_, err := d.WriteAt(make([]byte, n), off)
	return err
}

func (d syncDisk) WriteAtSync(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.write(p, off); err != nil {
		return err
	}
	copy(d.stable[off:], p)
	return nil
}

func (d markedDisk) VolatileMark() (blockdev.VolatileMark, error) { return d.markNow(), nil }

func (d markedDisk) SetVolatileMark(m blockdev.VolatileMark) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marks++
	if d.markErr != nil {
		return d.markErr
	}
	m.Stages, m.Lost = slices.Clone(m.Stages), slices.Clone(m.Lost)
	d.mark = m
	return nil
}

// asideDisk takes reads and does nothing with them.
type asideDisk struct {
	*disk
	taken int
}

func (d *asideDisk) BeginRead([]byte, int64, blockdev.ReadDone) bool { d.taken++; return true }
func (d *asideDisk) Reap() bool                                      { return false }
func (d *asideDisk) Leave()                                          {}

func (d nowaitDisk) ReadAtNowait(p []byte, off int64) (int, error) {
	if *d.cold != nil {
		return 0, *d.cold
	}
	return d.ReadAt(p, off)
}
