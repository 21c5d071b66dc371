package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
)

// Create makes an empty volume.
func (p *Pool) Create(ctx context.Context, r blockdev.Record) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.life.RUnlock()
	v, err := p.takeNew(ctx, r.ID)
	if err != nil {
		return err
	}
	defer p.settle(r.ID, v)
	switch p.stateOf(v) {
	case whole, corrupt:
		return fmt.Errorf("volume %s: %w", r.ID, blockdev.ErrExists)
	case debris:
		if err := p.discard(r.ID, v); err != nil {
			return fmt.Errorf("volume %s: create: clean up an earlier attempt: %w", r.ID, fd.Errno(err))
		}
	}
	r = clone(r)
	if err := p.disk.build(r); err != nil {
		err = fmt.Errorf("volume %s: create: %w", r.ID, fd.Errno(err))
		return errors.Join(err, p.discard(r.ID, v))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	v.record, v.state = r, whole
	return nil
}

// settle ends a turn that may have left nothing to know of the volume.
func (p *Pool) settle(id string, v *volume) {
	p.mu.Lock()
	if v.state == absent {
		delete(p.volumes, id)
	}
	p.mu.Unlock()
	p.give(v)
}

// takeNew waits for the turn of a volume and makes the pool know it, as
// absent, where it does not yet.
func (p *Pool) takeNew(ctx context.Context, id string) (*volume, error) {
	for {
		p.mu.Lock()
		if p.volumes[id] == nil {
			p.volumes[id] = newVolume()
		}
		p.mu.Unlock()
		v, err := p.take(ctx, id)
		if !errors.Is(err, blockdev.ErrNotFound) {
			return v, err
		}
	}
}

// build makes the volume in staging and moves it into volumes.
func (d *disk) build(r blockdev.Record) error {
	record, err := encode(recordFile{formatVersion, r})
	if err != nil {
		return err
	}
	staged := stagingDir + "/" + r.ID
	steps := []func() error{
		func() error { return d.mkdir(staged) },
		func() error { return d.createSparse(staged+"/data", r.Size) },
		func() error { return d.createWith(staged+"/record.json", record) },
		func() error { return d.syncDir(staged) },
		func() error { return d.rename(staged, volumePath(r.ID)) },
		func() error { return d.syncDir(volumesDir) },
		func() error { return d.syncDir(stagingDir) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Delete removes a volume.
func (p *Pool) Delete(ctx context.Context, id string) error {
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.life.RUnlock()
	v, err := p.take(ctx, id)
	if err != nil {
		return err
	}
	defer p.settle(id, v)
	if p.isOpen(v) {
		return fmt.Errorf("volume %s: delete: its device is open: %w", id, blockdev.ErrBusy)
	}
	switch p.stateOf(v) {
	case corrupt:
		return p.deleteCorrupt(id, v)
	case absent:
		return errNotFound(id)
	}
	if err := p.discard(id, v); err != nil {
		return fmt.Errorf("volume %s: delete: %w", id, fd.Errno(err))
	}
	return nil
}

// deleteCorrupt forgets a volume that somebody has taken away by hand. It
// destroys nothing by itself: data that nobody can tell the owner of may be
// another volume's, or the only copy.
func (p *Pool) deleteCorrupt(id string, v *volume) error {
	_, err := p.disk.root.Lstat(volumePath(id))
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; it is not deleted unseen: put its files back from a backup and restart, or move %s away and delete the volume again",
			v.refuse, filepath.Join(p.dir, volumePath(id)))
	}
	if err := p.discard(id, v); err != nil {
		return fmt.Errorf("volume %s: delete: %w", id, fd.Errno(err))
	}
	return nil
}

// discard removes whatever there is of a volume, whole or half, and leaves it
// absent. When it fails before the volume has left volumes, a whole volume
// stays whole; in every other case what is left is debris. The caller holds
// the volume's turn.
func (p *Pool) discard(id string, v *volume) error {
	trashed := trashDir + "/" + id
	err := p.disk.rename(volumePath(id), trashed)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if p.stateOf(v) != whole {
			p.setState(v, debris)
		}
		return err
	}
	p.setState(v, debris)
	steps := []func() error{
		func() error { return p.disk.syncDir(trashDir) },
		func() error { return p.disk.syncDir(volumesDir) },
		func() error { return p.disk.remove(trashed) },
		func() error { return p.disk.remove(stagingDir + "/" + id) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	p.setState(v, absent)
	return nil
}

func (p *Pool) setState(v *volume, s state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v.state = s
}

// Resize grows a volume.
func (p *Pool) Resize(ctx context.Context, id string, size int64) error {
	v, done, err := p.work(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	r := p.record(v)
	if size < r.Size {
		return fmt.Errorf("volume %s: from %d to %d bytes: %w", id, r.Size, size, blockdev.ErrShrink)
	}
	if size == r.Size && !p.isUnsure(v) {
		return nil
	}
	r.Size = size
	if err := r.Validate(); err != nil {
		return err
	}
	if err := p.grow(v, r); err != nil {
		return fmt.Errorf("volume %s: resize: %w", id, fd.Errno(err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.device != nil {
		v.device.SetSize(size)
	}
	return nil
}

// isUnsure reports whether the record may not be stable yet.
func (p *Pool) isUnsure(v *volume) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return v.unsure
}

// grow makes file and record r.Size long. A longer file stays as long as it is:
// what lies beyond the record may be all that is left of a volume whose record
// was put back from an older copy.
func (p *Pool) grow(v *volume, r blockdev.Record) (err error) {
	name := dataPath(r.ID)
	f, err := p.disk.openRegular(name, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	before := st.Size()
	if before < r.Size {
		err = p.disk.truncate(f, name, r.Size)
	}
	if err == nil {
		err = p.writeRecord(v, r)
	}
	if err != nil && before < r.Size {
		err = errors.Join(err, p.cutBack(f, r.ID, before))
	}
	return err
}

// cutBack takes back what a Resize that failed has grown. Nobody was told of
// it, so nothing was written there. It does so only while the record that lies
// on the disk promises no more: one that could not be read might.
func (p *Pool) cutBack(f *os.File, id string, size int64) error {
	// A longer file does no harm; a shorter one is the end of the volume.
	if r, err := p.disk.readRecord(id); err == nil && r.Size <= size {
		return p.disk.truncate(f, dataPath(id), size)
	}
	return nil
}
