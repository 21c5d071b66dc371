package raw

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
)

// stateVersion is the format of a state file. A file of another version is
// refused, never guessed at.
const stateVersion = 1

// stateDocument is a state file as it lies on the disk.
type stateDocument struct {
	Version int `json:"version"`
	// Device is for people: the path of the device when the file was written.
	Device string          `json:"device"`
	State  json.RawMessage `json:"state"`
}

// stateFile is the logical unit's state beside a device that has no place for
// it.
type stateFile struct {
	device, path string

	mu     sync.Mutex
	closed bool
}

// A device of each kind with a state file; what can be written to has a journal
// beside it.
type (
	keptDevice struct {
		*fd.Device
		*stateFile
		atomic
	}
	keptThin struct {
		thin
		*stateFile
		atomic
	}
	keptReadOnly struct {
		readOnly
		*stateFile
	}
)

var (
	_ blockdev.StateKeeper  = keptDevice{}
	_ blockdev.StateLocator = keptDevice{}
	_ blockdev.AtomicWriter = keptDevice{}
	_ blockdev.Recoverer    = keptDevice{}
	_ blockdev.Unmapper     = keptThin{}
	_ blockdev.AtomicWriter = keptThin{}
	_ blockdev.Recoverer    = keptThin{}
	_ blockdev.StateKeeper  = keptReadOnly{}
)

// kept gives a device its state file, and a journal, where it has a place for
// them.
func kept(d blockdev.Device, device, path string) (blockdev.Device, error) {
	if path == "" {
		return d, nil
	}
	s := &stateFile{device: device, path: path}
	switch d := d.(type) {
	case thin:
		a, err := newAtomic(d.Device, device, path)
		return keptThin{d, s, a}, err
	case readOnly:
		return keptReadOnly{d, s}, refusePending(d, device, path)
	case *fd.Device:
		a, err := newAtomic(d, device, path)
		return keptDevice{d, s, a}, err
	}
	return d, nil
}

// Close closes the medium and ends the use of the files beside it.
func (d keptDevice) Close() error {
	return errors.Join(d.journal.Close(), d.Device.Close(), d.end())
}

// Close closes the medium and ends the use of the files beside it.
func (d keptThin) Close() error {
	return errors.Join(d.journal.Close(), d.thin.Close(), d.end())
}

// Close closes the medium and ends the use of the state file.
func (d keptReadOnly) Close() error { return errors.Join(d.readOnly.Close(), d.end()) }

// Recover makes Sync believable again, and completes an atomic write that the
// medium's failure interrupted.
func (d keptDevice) Recover() error { return d.journal.Recover() }

// Recover makes Sync believable again, and completes an atomic write that the
// medium's failure interrupted.
func (d keptThin) Recover() error { return d.journal.Recover() }

func (s *stateFile) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// StateLocation is the file's path.
func (s *stateFile) StateLocation() string { return s.path }

// State reads the file.
func (s *stateFile) State() (json.RawMessage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("state of %s: %w", s.device, blockdev.ErrClosed)
	}
	state, err := readState(s.path)
	if err != nil {
		return nil, fmt.Errorf("state of %s: %w", s.device, err)
	}
	return state, nil
}

func readState(path string) (json.RawMessage, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // nothing was written to it
	text, err := io.ReadAll(io.LimitReader(f, 8*blockdev.MaxState))
	if err != nil {
		return nil, err
	}
	var doc stateDocument
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&doc) != nil || decoder.More() || doc.Version != stateVersion || len(doc.State) == 0 {
		return nil, fmt.Errorf("%s is no state file of version %d: %w; put it back from a backup, or remove it if the reservations and mode pages in it may be forgotten",
			path, stateVersion, blockdev.ErrCorrupt)
	}
	return doc.State, nil
}

// SetState replaces the file, or removes it.
func (s *stateFile) SetState(state json.RawMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("state of %s: %w", s.device, blockdev.ErrClosed)
	}
	err := blockdev.ValidateState(state)
	if err == nil {
		err = s.write(state)
	}
	if err != nil {
		return fmt.Errorf("state of %s: %w", s.device, fd.Errno(err))
	}
	return nil
}

func (s *stateFile) write(state json.RawMessage) error {
	if len(state) == 0 {
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncDir(filepath.Dir(s.path))
	}
	text, err := json.Marshal(stateDocument{stateVersion, s.device, state})
	if err != nil {
		return err
	}
	temporary := s.path + ".tmp"
	if err := writeStable(temporary, append(text, '\n')); err != nil {
		return err
	}
	if err := os.Rename(temporary, s.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.path))
}

// writeStable makes a file whose content is on stable storage; its name is
// after syncDir. What an earlier attempt left is replaced.
func writeStable(path string, text []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
