package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	runPrefix = "csi-ietd-lab-"
	lockName  = "lock"
	keptName  = "kept" // marks a failed run's logs, which nobody sweeps
	// keptSize is the largest file kept after a failure, in bytes: logs stay,
	// disks and binaries go.
	keptSize = 8 << 20
)

// run is the directory of one run of a program. Its lock is held while the
// program lives, so that the next run can sweep what a killed one left.
type run struct {
	dir  string
	lock *os.File
}

func openRun() (*run, error) {
	sweep()
	dir, err := os.MkdirTemp("", runPrefix)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	r := &run{dir: dir}
	if r.lock, err = os.Create(filepath.Join(dir, lockName)); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("locking %s: %w", r.lock.Name(), err)
	}
	return r, os.Mkdir(r.bin(), 0o755)
}

func (r *run) bin() string { return filepath.Join(r.dir, "bin") }

// close removes the run, or after a failure all of it but the logs.
func (r *run) close(success bool) {
	defer r.lock.Close()
	if success {
		if err := os.RemoveAll(r.dir); err != nil {
			fmt.Fprintln(os.Stderr, "lab: cleaning up:", err)
		}
		return
	}
	prune(r.dir)
	_ = os.WriteFile(filepath.Join(r.dir, keptName), nil, 0o644)
	fmt.Fprintln(os.Stderr, "lab: logs are kept in", r.dir)
}

// prune removes what is too large to keep or is no file to read.
func prune(dir string) {
	_ = os.RemoveAll(filepath.Join(dir, "bin"))
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() && (info.Size() > keptSize || !info.Mode().IsRegular()) {
			err = os.Remove(path)
		}
		return err
	})
}

// sweep removes the directories of runs that were killed.
func sweep() {
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		return
	}
	for _, e := range entries {
		if dir := filepath.Join(os.TempDir(), e.Name()); strings.HasPrefix(e.Name(), runPrefix) && abandoned(dir) {
			_ = os.RemoveAll(dir)
		}
	}
}

func abandoned(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, keptName)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	lock, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false // another run is just making it
	}
	defer lock.Close()
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}
