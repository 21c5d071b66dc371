package file

import (
	"errors"
	"os"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/journal"
)

// journal is where a volume's atomic writes pass through.
func (d *disk) journal(id string) journal.Place {
	name := journalPath(id)
	return journal.Place{
		Owner: id,
		Name:  name,
		Open:  func() (*os.File, error) { return d.openRegular(name, os.O_RDWR) },
		Create: func() error {
			err := d.replaceAnew(name, make([]byte, journal.Size))
			if err != nil {
				return errors.Join(err, d.remove(name+temporarySuffix))
			}
			return nil
		},
		Before: func(s journal.Step) error {
			switch s {
			case journal.WriteEntry:
				return d.before("write", name)
			case journal.SyncEntry:
				return d.before("fsync", name)
			}
			return d.before("fsync", dataPath(id))
		},
	}
}

// WriteAtomic writes all of p or nothing.
func (d *device) WriteAtomic(p []byte, off int64) error { return d.journal.WriteAtomic(p, off) }

// AtomicLimit is in bytes.
func (d *device) AtomicLimit() int { return d.journal.AtomicLimit() }

// Recover makes Sync believable again, and completes an atomic write that the
// medium's failure interrupted.
func (d *device) Recover() error { return d.journal.Recover() }
