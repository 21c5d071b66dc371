package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
)

// Options are what Open may be told; the zero value is usable.
type Options struct {
	// Logger hears what was cleaned up and what was refused; nil is
	// slog.Default().
	Logger *slog.Logger

	step  func(event, path string) error // a test's power switch
	calls fd.Calls                       // of the devices
}

// Pool is a pool in a directory. All methods may be called concurrently.
type Pool struct {
	dir   string
	id    string
	disk  *disk
	log   *slog.Logger
	calls fd.Calls
	lock  *os.File

	// punch is the granularity of hole punching here in bytes, 0 where the
	// file system has none.
	punch int64

	// life is read-held by every call in flight; Close takes it whole.
	life   sync.RWMutex
	closed bool

	mu      sync.Mutex // guards volumes and the fields of each
	volumes map[string]*volume
}

var _ blockdev.Pool = (*Pool)(nil)

// volume is what the pool knows of one id. Whoever holds its turn may change
// it, under the pool's mu.
type volume struct {
	turn chan struct{} // holds one token while nobody is at work on it

	record blockdev.Record
	unsure bool // the last write of the record failed, half-way perhaps
	state  state
	refuse error   // why it is corrupt
	device *device // nil while it is not open
}

type state uint8

const (
	// absent: there is nothing; somebody waits to create it.
	absent state = iota
	// debris: a failed Create or Delete left something. The volume does
	// not exist; the next Create or Delete of it cleans up.
	debris
	whole
	corrupt
)

func newVolume() *volume {
	v := &volume{turn: make(chan struct{}, 1)}
	v.turn <- struct{}{}
	return v
}

// ID is the pool's id.
func (p *Pool) ID() string { return p.id }

// Close releases the pool and its lock; an open device makes it ErrBusy.
func (p *Pool) Close() error {
	p.life.Lock()
	defer p.life.Unlock()
	if p.closed {
		return p.errClosed()
	}
	if n := p.open(); n > 0 {
		return fmt.Errorf("pool %s: %d devices are open: %w", p.dir, n, blockdev.ErrBusy)
	}
	p.closed = true
	return errors.Join(p.disk.root.Close(), p.lock.Close())
}

// open counts the open devices.
func (p *Pool) open() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.volumes {
		if v.device != nil {
			n++
		}
	}
	return n
}

func (p *Pool) errClosed() error {
	return fmt.Errorf("pool %s: %w", p.dir, blockdev.ErrClosed)
}

// enter admits a call; the caller calls p.life.RUnlock after nil.
func (p *Pool) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.life.RLock()
	if p.closed {
		p.life.RUnlock()
		return p.errClosed()
	}
	return nil
}

// Get returns a volume's record.
func (p *Pool) Get(ctx context.Context, id string) (blockdev.Record, error) {
	if err := p.enter(ctx); err != nil {
		return blockdev.Record{}, err
	}
	defer p.life.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.volumes[id]
	if err := v.usable(id); err != nil {
		return blockdev.Record{}, err
	}
	return clone(v.record), nil
}

// List returns every volume's record, ordered by id, without the corrupt
// ones: Refused has those.
func (p *Pool) List(ctx context.Context) ([]blockdev.Record, error) {
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer p.life.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	records := make([]blockdev.Record, 0, len(p.volumes))
	for _, v := range p.volumes {
		if v.state == whole {
			records = append(records, clone(v.record))
		}
	}
	slices.SortFunc(records, func(a, b blockdev.Record) int { return strings.Compare(a.ID, b.ID) })
	return records, nil
}

// Refused returns why each corrupt volume is refused, by id.
func (p *Pool) Refused() map[string]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	refused := map[string]error{}
	for id, v := range p.volumes {
		if v.state == corrupt {
			refused[id] = v.refuse
		}
	}
	return refused
}

// SetMeta replaces a volume's Meta.
func (p *Pool) SetMeta(ctx context.Context, id string, meta json.RawMessage) error {
	if err := blockdev.ValidateMeta(id, meta); err != nil {
		return err
	}
	v, done, err := p.work(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	r := p.record(v)
	r.Meta = meta
	return p.writeRecord(v, r)
}

// Open opens a volume's device.
func (p *Pool) Open(ctx context.Context, id string) (blockdev.Device, error) {
	v, done, err := p.work(ctx, id)
	if err != nil {
		return nil, err
	}
	defer done()
	if p.isOpen(v) {
		return nil, fmt.Errorf("volume %s is open already: %w", id, blockdev.ErrBusy)
	}
	d, err := p.openDevice(v, p.record(v))
	if err != nil {
		return nil, fmt.Errorf("volume %s: open: %w", id, err)
	}
	p.mu.Lock()
	v.device = d
	p.mu.Unlock()
	if p.punch > 0 {
		return thinDevice{d}, nil
	}
	return d, nil
}

// work waits for the volume's turn and returns it whole, or says why not. The
// caller calls done.
func (p *Pool) work(ctx context.Context, id string) (*volume, func(), error) {
	if err := p.enter(ctx); err != nil {
		return nil, nil, err
	}
	v, err := p.take(ctx, id)
	if err == nil {
		p.mu.Lock()
		err = v.usable(id)
		p.mu.Unlock()
		if err == nil {
			return v, func() { p.give(v); p.life.RUnlock() }, nil
		}
		p.give(v)
	}
	p.life.RUnlock()
	return nil, nil, err
}

// take waits for the turn of a volume that the pool knows; nil stands for one
// that it does not.
func (p *Pool) take(ctx context.Context, id string) (*volume, error) {
	for {
		p.mu.Lock()
		v := p.volumes[id]
		p.mu.Unlock()
		if v == nil {
			return nil, errNotFound(id)
		}
		select {
		case <-v.turn:
		case <-ctx.Done():
			return nil, fmt.Errorf("volume %s: waiting for another call: %w", id, ctx.Err())
		}
		if p.known(id, v) {
			return v, nil
		}
		// It was deleted while we waited, and may have been made anew.
		p.give(v)
	}
}

// known reports whether v is still what the pool has under id.
func (p *Pool) known(id string, v *volume) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.volumes[id] == v
}

func (p *Pool) give(v *volume) { v.turn <- struct{}{} }

// usable is for a caller that holds the pool's mu; a nil volume is one that
// the pool does not know.
func (v *volume) usable(id string) error {
	switch {
	case v == nil || v.state == absent || v.state == debris:
		return errNotFound(id)
	case v.state == corrupt:
		return v.refuse
	}
	return nil
}

func errNotFound(id string) error {
	return fmt.Errorf("volume %.64q: %w", id, blockdev.ErrNotFound)
}

func (p *Pool) isOpen(v *volume) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return v.device != nil
}

func (p *Pool) stateOf(v *volume) state {
	p.mu.Lock()
	defer p.mu.Unlock()
	return v.state
}

func (p *Pool) record(v *volume) blockdev.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return v.record
}

// writeRecord makes r the volume's record. When that fails the rename may
// have happened or not: the pool then believes what now lies on the disk.
func (p *Pool) writeRecord(v *volume, r blockdev.Record) error {
	r = clone(r)
	err := p.disk.writeRecord(r)
	if err != nil {
		err = fmt.Errorf("volume %s: record: %w", r.ID, fd.Errno(err))
		var unread error
		if r, unread = p.disk.readRecord(r.ID); unread != nil {
			r, err = p.record(v), errors.Join(err, unread)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v.record, v.unsure = r, err != nil
	return err
}

// clone shares no bytes with r.
func clone(r blockdev.Record) blockdev.Record {
	r.Meta = slices.Clone(r.Meta)
	return r
}
