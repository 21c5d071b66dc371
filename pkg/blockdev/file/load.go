package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// load checks every volume; only an unreadable directory fails it.
func (p *Pool) load() error {
	entries, err := p.disk.list(volumesDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if blockdev.ValidateID(e.Name()) != nil {
			p.log.Warn("ignoring what is not a volume", "path", volumesDir+"/"+e.Name())
			continue
		}
		p.volumes[e.Name()] = p.loadVolume(e)
	}
	return nil
}

func (p *Pool) loadVolume(e fs.DirEntry) *volume {
	v := newVolume()
	r, err := p.check(e)
	if err != nil {
		p.log.Error("refusing a volume", "volume", e.Name(), "error", err)
		v.state, v.refuse = corrupt, refusal(e.Name(), err)
		return v
	}
	v.state, v.record = whole, r
	return v
}

// refusal names the volume. A missing file is damage too; what we may not, or
// could not, read says so itself.
func refusal(id string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("volume %s: %w: %w", id, blockdev.ErrCorrupt, err)
	}
	return fmt.Errorf("volume %s: %w", id, err)
}

// check returns the record of a volume that is sound. A file that is longer than
// its record was growing when something went wrong, or its record is an older
// one that somebody put back: the record counts, and nothing is cut.
func (p *Pool) check(e fs.DirEntry) (blockdev.Record, error) {
	id := e.Name()
	if !e.IsDir() {
		return blockdev.Record{}, fmt.Errorf("%s is no directory but %v: %w", volumePath(id), e.Type(), blockdev.ErrCorrupt)
	}
	if err := p.clean(id); err != nil {
		return blockdev.Record{}, err
	}
	r, err := p.disk.readRecord(id)
	if err != nil {
		return blockdev.Record{}, err
	}
	f, err := p.disk.openRegular(dataPath(id), os.O_RDONLY)
	if err != nil {
		return blockdev.Record{}, err
	}
	defer f.Close() // nothing was written to it
	st, err := f.Stat()
	if err != nil {
		return blockdev.Record{}, err
	}
	switch size := st.Size(); {
	case size < r.Size:
		return blockdev.Record{}, fmt.Errorf("%s has %d bytes, its record says %d: %w", dataPath(id), size, r.Size, blockdev.ErrCorrupt)
	case size%int64(r.BlockSize) != 0:
		return blockdev.Record{}, fmt.Errorf("%s has %d bytes, which no volume has: %w", dataPath(id), size, blockdev.ErrCorrupt)
	case size > r.Size:
		p.log.Warn("a volume's file is longer than its record says; the record counts", "volume", id, "file", size, "record", r.Size)
	}
	return r, nil
}

// clean removes the temporary files of an interrupted replace.
func (p *Pool) clean(id string) error {
	entries, err := p.disk.list(volumePath(id))
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch name := volumePath(id) + "/" + e.Name(); name {
		case recordPath(id) + temporarySuffix, volatilePath(id) + temporarySuffix, unitPath(id) + temporarySuffix,
			journalPath(id) + temporarySuffix:
			p.log.Info("removing what an interrupted call left", "path", name)
			if err := p.disk.remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}
