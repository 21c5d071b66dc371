package raw

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/journal"
	"golang.org/x/sys/unix"
)

// journalSuffix makes a journal's path of a state file's.
const journalSuffix = ".journal"

// atomic is what a journal adds to a device.
type atomic struct{ journal *journal.Journal }

func newAtomic(d *fd.Device, device, stateFile string) (atomic, error) {
	j, err := journal.Open(d, journalPlace(device, stateFile+journalSuffix, os.O_RDWR))
	if err != nil {
		return atomic{}, errors.Join(err, d.Close())
	}
	return atomic{j}, nil
}

// WriteAtomic writes all of p or nothing.
func (a atomic) WriteAtomic(p []byte, off int64) error { return a.journal.WriteAtomic(p, off) }

// AtomicLimit is in bytes.
func (a atomic) AtomicLimit() int { return a.journal.AtomicLimit() }

// refusePending refuses to show a medium that may hold half of a write.
func refusePending(d blockdev.Device, device, stateFile string) error {
	path := stateFile + journalSuffix
	pending, err := journal.Pending(journalPlace(device, path, os.O_RDONLY), d.Size())
	if err == nil && pending {
		err = fmt.Errorf("%s holds an interrupted write: open the device for writing once, which completes it: %w", path, blockdev.ErrCorrupt)
	}
	return err
}

// journalPlace is a journal's file. The flag is that of its Open.
func journalPlace(device, path string, flag int) journal.Place {
	return journal.Place{
		Owner:  device,
		Name:   path,
		Open:   func() (*os.File, error) { return os.OpenFile(path, flag|unix.O_NOFOLLOW, 0) },
		Create: func() error { return replaceFile(path, make([]byte, journal.Size)) },
	}
}

// replaceFile makes content a file's content, at once and for good. Where it fails
// the old content is there, or the new one, and no temporary file.
func replaceFile(path string, content []byte) error {
	temporary := path + ".tmp"
	err := writeStable(temporary, content)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary) // not there, or of no use
		return err
	}
	return syncDir(filepath.Dir(path))
}
