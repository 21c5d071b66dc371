package agent

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// fileWatch reads the files that match some globs whenever they have changed.
type fileWatch struct {
	*watcher
	globs []string
	known map[string]fileState
}

// fileState tells whether a file may have changed.
type fileState struct {
	info    fs.FileInfo
	changed time.Time
	size    int64
	mode    fs.FileMode
}

func (s fileState) equal(o fileState) bool {
	return s.changed.Equal(o.changed) && s.size == o.size && s.mode == o.mode && os.SameFile(s.info, o.info)
}

func (f *fileWatch) look() error {
	for _, glob := range f.globs {
		paths, err := filepath.Glob(glob)
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := f.read(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// read tells of a file that has changed since it was last read. One that goes
// away meanwhile is none.
func (f *fileWatch) read(path string) error {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil // gone, or a directory that the glob matched too
	}
	state := fileState{info, info.ModTime(), info.Size(), info.Mode()}
	if old, ok := f.known[path]; ok && old.equal(state) {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil // gone
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxObservation))
	if err != nil {
		return nil // gone, or the file system has failed
	}
	f.known[path] = state
	return f.observe(Observation{Kind: File, Path: path, Mode: info.Mode().Perm(), Data: data})
}
