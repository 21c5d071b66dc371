package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// disk is the pool's directory. Whatever changes it is one method here, and
// each asks step first, so that a test can cut the power between any two.
// Paths are relative to the pool and never leave it (os.Root).
type disk struct {
	root *os.Root
	step func(event, path string) error // nil outside tests
}

func (d *disk) before(event, path string) error {
	if d.step == nil {
		return nil
	}
	return d.step(event, path)
}

func (d *disk) mkdir(name string) error {
	if err := d.before("mkdir", name); err != nil {
		return err
	}
	return d.root.Mkdir(name, 0o700)
}

func (d *disk) rename(from, to string) error {
	if err := d.before("rename", from+" "+to); err != nil {
		return err
	}
	return d.root.Rename(from, to)
}

// remove removes a file or a whole directory; none is no error.
func (d *disk) remove(name string) error {
	if err := d.before("remove", name); err != nil {
		return err
	}
	return d.root.RemoveAll(name)
}

// truncate sets a file's length and makes it stable.
func (d *disk) truncate(f *os.File, name string, size int64) error {
	if err := d.before("truncate", name); err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return d.fsync(f, name)
}

func (d *disk) fsync(f *os.File, name string) error {
	if err := d.before("fsync", name); err != nil {
		return err
	}
	return f.Sync()
}

// create makes a file, has fill write it, and makes its content stable; its
// name is stable after syncDir of its directory.
func (d *disk) create(name string, fill func(*os.File) error) (err error) {
	if err := d.before("create", name); err != nil {
		return err
	}
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return fill(f)
}

func (d *disk) createSparse(name string, size int64) error {
	return d.create(name, func(f *os.File) error { return d.truncate(f, name, size) })
}

func (d *disk) createWith(name string, content []byte) error {
	return d.create(name, func(f *os.File) error {
		if err := d.before("write", name); err != nil {
			return err
		}
		if _, err := f.Write(content); err != nil {
			return err
		}
		return d.fsync(f, name)
	})
}

func (d *disk) syncDir(name string) (err error) {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := d.before("fsyncdir", name); err != nil {
		return err
	}
	return f.Sync()
}

// openRegular opens a file that is itself a regular file, not a link to one.
func (d *disk) openRegular(name string, flag int) (*os.File, error) {
	before, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file but %v: %w", name, before.Mode().Type(), blockdev.ErrCorrupt)
	}
	f, err := d.root.OpenFile(name, flag, 0)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s was exchanged while it was opened", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// list returns a directory's entries.
func (d *disk) list(name string) ([]fs.DirEntry, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	return entries, errors.Join(err, f.Close())
}
