// Package durable replaces and removes small files so that a power cut leaves
// the old file or the new one, never a mix and never a torn one.
//
// The order of events of a write is: a new file beside the old one, mode 0600,
// written and fsynced; renamed over the old one; the directory fsynced.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tempPrefix marks files that a crash left half-made.
const tempPrefix = ".csi-ietd-"

// WriteFile makes path hold data, readable by its owner alone. When it returns
// nil that is on stable storage.
func WriteFile(path string, data []byte) error {
	return WriteFileVia(filepath.Dir(path), path, data)
}

// WriteFileVia is WriteFile with the half-made file in another directory of
// the same file system, for places whose every file is taken to mean
// something.
func WriteFileVia(tempDir, path string, data []byte) error {
	temp, err := writeTemp(tempDir, data)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp))
	}
	return SyncDir(filepath.Dir(path))
}

func writeTemp(dir string, data []byte) (path string, err error) {
	f, err := os.CreateTemp(dir, tempPrefix) // mode 0600
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return "", err
	}
	return f.Name(), f.Sync()
}

// Remove removes path, durably; one that does not exist is fine.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Sweep removes what a crash in the middle of WriteFile left in dir. Nobody
// may be writing there.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) && e.Type().IsRegular() {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
