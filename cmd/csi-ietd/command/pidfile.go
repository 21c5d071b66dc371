package command

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pidFile holds this process's id and is locked as long as it lives.
type pidFile struct {
	path string
	file *os.File
}

// lockPidFile makes the file; another daemon that has it is an error.
func lockPidFile(path string) (*pidFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, fmt.Errorf("unable to create pid file: %w", err)
	}
	p := &pidFile{path, f}
	// A lock of fcntl's, as the old daemon had: two of them see each other.
	err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	if err != nil {
		owner := ""
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EAGAIN) {
			owner = ": another ietd runs, with process id " + p.read()
		}
		return nil, errors.Join(fmt.Errorf("unable to lock pid file %s%s: %w", path, owner, err), f.Close())
	}
	if err := p.write(); err != nil {
		return nil, errors.Join(fmt.Errorf("unable to create pid file: %w", err), f.Close())
	}
	return p, nil
}

// read returns what the file has, for a message.
func (p *pidFile) read() string {
	b := make([]byte, 16)
	n, _ := p.file.ReadAt(b, 0)
	for i, c := range b[:n] {
		if c < '0' || c > '9' {
			return string(b[:i])
		}
	}
	return string(b[:n])
}

func (p *pidFile) write() error {
	if err := p.file.Truncate(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.file, "%d\n", os.Getpid())
	return err
}

// remove takes the file away, before its lock. A user that may not leaves it empty.
func (p *pidFile) remove() error {
	if err := os.Remove(p.path); err != nil {
		_ = p.file.Truncate(0)
	}
	return p.file.Close()
}
