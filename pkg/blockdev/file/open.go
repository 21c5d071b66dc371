package file

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// Open opens the pool in dir, makes it where dir is absent or empty, cleans up
// what a power cut left half-made, and checks every volume. A pool that is
// open already, here or in another process, is ErrBusy; a directory that holds
// something else is ErrInvalid.
func Open(dir string, o Options) (_ *Pool, err error) {
	log := o.Logger
	if log == nil {
		log = slog.Default()
	}
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("pool %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("pool: %w", err)
	}
	p := &Pool{
		dir:     dir,
		disk:    &disk{root: root, step: o.step},
		log:     log.With("pool", dir),
		calls:   o.calls,
		volumes: map[string]*volume{},
	}
	if err := p.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("pool %s: %w", dir, fd.Errno(err)), p.abandon())
	}
	return p, nil
}

// start brings up a pool whose directory is open.
func (p *Pool) start() error {
	steps := []func() error{p.acquire, p.identify, p.sweep, p.probe, p.load}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// abandon gives up a pool that did not start.
func (p *Pool) abandon() error {
	err := p.disk.root.Close()
	if p.lock != nil {
		err = errors.Join(err, p.lock.Close())
	}
	return err
}

// makeDir makes dir and its missing parents, for us alone, and makes their
// names stable.
func makeDir(dir string) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		return fmt.Errorf("%s is no directory: %w", dir, blockdev.ErrInvalid)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// acquire takes the lock that tells a second opener off.
func (p *Pool) acquire() error {
	if err := p.disk.before("create", lockName); err != nil {
		return err
	}
	f, err := p.disk.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	p.lock = f
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return fmt.Errorf("%s is locked: another csi-ietd serves this pool, and a pool is served by one at a time; stop that one first: %w",
				filepath.Join(p.dir, lockName), blockdev.ErrBusy)
		default:
			return err
		}
	}
}

// identify reads the pool's id, or mints it in a directory that is empty but
// for what an earlier attempt at this left.
func (p *Pool) identify() error {
	var f poolFile
	err := p.disk.read(poolName, &f)
	if err == nil {
		p.id = f.ID
		if blockdev.ValidateID(f.ID) != nil {
			return fmt.Errorf("%s: id %.64q is no UUID: %w", poolName, f.ID, blockdev.ErrCorrupt)
		}
		return p.makeDirs()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := p.checkUnused(); err != nil {
		return err
	}
	if err := p.makeDirs(); err != nil {
		return err
	}
	p.id = uuid.NewString()
	b, err := encode(poolFile{formatVersion, p.id})
	if err != nil {
		return err
	}
	return p.disk.replace(poolName, b)
}

// checkUnused refuses to make a pool of a directory with other contents, or of
// one that has volumes but lost its pool.json: a new id would orphan them.
func (p *Pool) checkUnused() error {
	entries, err := p.disk.list(".")
	if err != nil {
		return err
	}
	ours := []string{lockName, poolName + temporarySuffix, volumesDir, stagingDir, trashDir, "lost+found"}
	for _, e := range entries {
		if !slices.Contains(ours, e.Name()) {
			return fmt.Errorf("holds %q and no %s: give the pool an empty directory: %w", e.Name(), poolName, blockdev.ErrInvalid)
		}
	}
	volumes, err := p.disk.list(volumesDir)
	if err == nil && len(volumes) > 0 {
		return fmt.Errorf("%s is missing but there are %d volumes: put it back from a backup: %w", poolName, len(volumes), blockdev.ErrCorrupt)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (p *Pool) makeDirs() error {
	for _, dir := range []string{volumesDir, stagingDir, trashDir} {
		if err := p.disk.mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return p.disk.syncDir(".")
}

// sweep empties staging and trash.
func (p *Pool) sweep() error {
	for _, dir := range []string{stagingDir, trashDir} {
		entries, err := p.disk.list(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			p.log.Info("removing what an interrupted call left", "path", dir+"/"+e.Name())
			if err := p.disk.remove(dir + "/" + e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// blocksOf returns the 512-byte blocks that a file occupies.
func blocksOf(info fs.FileInfo) int64 {
	return info.Sys().(*syscall.Stat_t).Blocks
}
