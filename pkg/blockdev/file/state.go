package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
)

// StateLocation is the file's path.
func (d *device) StateLocation() string {
	return filepath.Join(d.pool.dir, unitPath(d.id))
}

// State reads the logical unit's state from the disk.
func (d *device) State() (json.RawMessage, error) {
	d.mark.Lock()
	defer d.mark.Unlock()
	if d.closed {
		return nil, d.errClosed()
	}
	state, err := d.pool.disk.readState(d.id)
	if errors.Is(err, blockdev.ErrCorrupt) {
		err = fmt.Errorf("%w; put %s back from a backup, or move it away if the reservations and mode pages in it may be forgotten", err, d.StateLocation())
	}
	if err != nil {
		return nil, fmt.Errorf("volume %s: state of the logical unit: %w", d.id, err)
	}
	return state, nil
}

func (d *disk) readState(id string) (json.RawMessage, error) {
	var f unitFile
	err := d.read(unitPath(id), &f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && len(f.State) == 0 {
		err = fmt.Errorf("%s: has no state: %w", unitPath(id), blockdev.ErrCorrupt)
	}
	return f.State, err
}

// SetState replaces the logical unit's state on the disk.
func (d *device) SetState(state json.RawMessage) error {
	d.mark.Lock()
	defer d.mark.Unlock()
	if d.closed {
		return d.errClosed()
	}
	err := blockdev.ValidateState(state)
	if err == nil {
		err = d.pool.disk.writeState(d.id, state)
	}
	if err != nil {
		return fmt.Errorf("volume %s: state of the logical unit: %w", d.id, fd.Errno(err))
	}
	return nil
}

// writeState asks nothing of a file system that is full: what is there is
// changed in the blocks of a spare, and removed without any.
func (d *disk) writeState(id string, state json.RawMessage) error {
	if len(state) == 0 {
		if err := d.retire(unitPath(id)); err != nil {
			return err
		}
		return d.syncDir(volumePath(id))
	}
	b, err := encode(unitFile{formatVersion, state})
	if err != nil {
		return err
	}
	if err := d.keepSpare(unitPath(id), len(b)); err != nil {
		return err
	}
	return d.replace(unitPath(id), b)
}
