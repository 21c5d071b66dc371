package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"golang.org/x/sys/unix"
)

const (
	// temporarySuffix marks what a power cut may leave behind in replace.
	temporarySuffix = ".tmp"
	// spareSuffix marks a file whose blocks wait for the day on which the
	// file system has none left.
	spareSuffix = ".spare"
	// spareUnit is what a spare's size is a multiple of.
	spareUnit = 4096
)

// replace makes content the file's content, at once and for good. On a full
// file system it still can, in the blocks of a spare, for what a full pool needs
// most is to close an attachment and to delete a volume.
func (d *disk) replace(name string, content []byte) error {
	err := d.replaceAnew(name, content)
	if errors.Is(fd.Errno(err), blockdev.ErrNoSpace) {
		if spared := d.replaceBySpare(name, content); !errors.Is(spared, fs.ErrNotExist) {
			return spared
		}
	}
	return err
}

func (d *disk) replaceAnew(name string, content []byte) error {
	temporary := name + temporarySuffix
	err := d.remove(temporary)
	if err == nil {
		err = d.createWith(temporary, content)
	}
	if err == nil {
		err = d.rename(temporary, name)
	}
	if err != nil {
		return err
	}
	return d.syncDir(path.Dir(name))
}

// replaceBySpare writes over the spare's blocks and has the two files change
// places: what was replaced is the next spare. It begins with an fsync of the
// directory, for a spare that came from such a change must be one on the disk
// too before its content goes. Without a spare it is fs.ErrNotExist.
func (d *disk) replaceBySpare(name string, content []byte) error {
	spare := name + spareSuffix
	if _, err := d.root.Lstat(spare); err != nil {
		return err
	}
	steps := []func() error{
		func() error { return d.remove(name + temporarySuffix) },
		func() error { return d.syncDir(path.Dir(name)) },
		func() error { return d.overwrite(spare, content) },
		func() error { return d.exchange(spare, name) },
		func() error { return d.syncDir(path.Dir(name)) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("no space left, and by its spare: %w", err)
		}
	}
	d.scrub(spare)
	return nil
}

// overwrite replaces a file's content in place and makes it stable. The blocks
// that it has are used again, so that it needs none.
func (d *disk) overwrite(name string, content []byte) (err error) {
	f, err := d.openRegular(name, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := d.before("write", name); err != nil {
		return err
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	return d.truncate(f, name, int64(len(content)))
}

// exchange has two files of one directory change places, or moves the first
// where the second does not exist.
func (d *disk) exchange(from, to string) error {
	if _, err := d.root.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		return d.rename(from, to)
	}
	if err := d.before("exchange", from+" "+to); err != nil {
		return err
	}
	dir, err := d.root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer dir.Close() // read only
	at := int(dir.Fd())
	return unix.Renameat2(at, path.Base(from), at, path.Base(to), unix.RENAME_EXCHANGE)
}

// scrub takes what was replaced, which may hold secrets, out of a spare.
func (d *disk) scrub(spare string) {
	f, err := d.openRegular(spare, os.O_RDWR)
	if err != nil {
		return // it was a move: there is none any more
	}
	defer f.Close() // what it holds matters to nobody
	if st, err := f.Stat(); err == nil {
		_, _ = f.WriteAt(make([]byte, st.Size()), 0)
	}
}

// keepSpare sees to it that a file has a spare with the blocks for its size.
// Where there is no space for one now, the next call tries again.
func (d *disk) keepSpare(name string, size int) error {
	spare := name + spareSuffix
	if st, err := d.root.Lstat(spare); err == nil && max(st.Size(), 512*blocksOf(st)) >= int64(size) {
		return nil
	}
	blocks := (size + spareUnit - 1) / spareUnit
	err := d.remove(spare)
	if err == nil {
		err = d.createWith(spare, make([]byte, blocks*spareUnit))
	}
	if errors.Is(fd.Errno(err), blockdev.ErrNoSpace) {
		return d.remove(spare) // half a spare is none
	}
	return err
}

// retire takes a file away and lets its blocks be the spare where there is none.
func (d *disk) retire(name string) error {
	spare := name + spareSuffix
	if _, err := d.root.Lstat(spare); err == nil {
		return d.remove(name)
	}
	if err := d.rename(name, spare); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
