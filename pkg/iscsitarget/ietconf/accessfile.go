package ietconf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// maxAccessFile bounds a file of access control, in bytes.
	maxAccessFile = 1 << 20
	// maxAccessLines is how many lines it may have, comments included.
	maxAccessLines = 16384
	// settled is how old a change must be for the next one to have another
	// time; file systems count them in steps as long as 2 s.
	settled = 5 * time.Second
)

// accessCache keeps the files as they were parsed, by path.
type accessCache struct {
	mu    sync.Mutex
	files map[string]cachedFile
	now   func() time.Time
}

type cachedFile struct {
	at   fileState
	file *accessFile
}

// fileState is what changes with a file.
type fileState struct {
	dev, inode   uint64
	size         int64
	mtime, ctime time.Time
}

func stateOf(info fs.FileInfo) fileState {
	s := fileState{size: info.Size(), mtime: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.inode = sys.Dev, sys.Ino
		s.ctime = time.Unix(sys.Ctim.Unix())
	}
	return s
}

// old reports whether any change from now on will be seen in the state.
func (s fileState) old(now time.Time) bool {
	return now.Sub(s.ctime) > settled && now.Sub(s.mtime) > settled
}

// read returns the file of that name from the first directory that has it;
// nil: there is none.
func (a Access) read(name string) (*accessFile, error) {
	for _, dir := range a.dirs {
		f, err := a.cache.read(filepath.Join(dir, name))
		if f != nil || err != nil {
			return f, err
		}
	}
	return nil, nil
}

// read returns the file at path; nil: there is none.
func (c *accessCache) read(path string) (*accessFile, error) {
	// Not to wait for a FIFO's writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if info, lerr := os.Lstat(path); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, fmt.Errorf("%w: a link to nowhere; remove it or make its file", err)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	state, err := regular(f)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	known := c.files[path]
	c.mu.Unlock()
	if known.file != nil && known.at == state {
		return known.file, nil
	}
	content, state, err := readStable(f, state)
	if err != nil {
		return nil, err
	}
	parsed := parseAccess(path, content)
	if state.old(c.now()) {
		c.mu.Lock()
		c.files[path] = cachedFile{state, parsed}
		c.mu.Unlock()
	}
	return parsed, nil
}

// readStable reads a file that was in that state, again if it changes
// meanwhile, and returns the state that belongs to what was read.
func readStable(f *os.File, before fileState) ([]byte, fileState, error) {
	for range 3 {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, maxAccessFile+1))
		if err != nil {
			return nil, before, err // it names the file
		}
		after, err := regular(f)
		if err != nil {
			return nil, before, err
		}
		if before == after {
			return b, before, checkAccessSize(f.Name(), b)
		}
		before = after
	}
	return nil, before, fmt.Errorf("%s: changes while it is read: write another file and rename it", f.Name())
}

func regular(f *os.File) (fileState, error) {
	info, err := f.Stat()
	if err != nil {
		return fileState{}, err
	}
	if !info.Mode().IsRegular() {
		return fileState{}, fmt.Errorf("%s: want a regular file", f.Name())
	}
	return stateOf(info), nil
}

func checkAccessSize(path string, b []byte) error {
	if len(b) > maxAccessFile {
		return fmt.Errorf("%s: longer than %d bytes", path, maxAccessFile)
	}
	if n := bytes.Count(b, []byte("\n")); n > maxAccessLines {
		return fmt.Errorf("%s: %d lines, at most %d are allowed", path, n, maxAccessLines)
	}
	return nil
}
