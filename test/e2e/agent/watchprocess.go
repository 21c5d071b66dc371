package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// youth is how long a new process is read at every look, since it may yet
	// execute another program.
	youth = 200 * time.Millisecond
	// census is the time between two looks at all processes.
	census = time.Second
)

// processWatch reads the arguments and the environment of every process. New
// ones are found by the last process id that the kernel gave, which costs one
// read where nothing is new.
type processWatch struct {
	*watcher
	loadavg *os.File
	last    int
	young   map[int]*youngster // by process id
	next    time.Time          // census
	buf     []byte
}

// youngster is a process that may yet execute another program.
type youngster struct {
	grown   time.Time // when it is taken not to any more
	cmdline []byte
}

func newProcessWatch(w *watcher) (*processWatch, error) {
	f, err := os.Open("/proc/loadavg")
	if err != nil {
		return nil, err
	}
	return &processWatch{watcher: w, loadavg: f, young: map[int]*youngster{}, buf: make([]byte, maxProc)}, nil
}

func (p *processWatch) Close() error { return p.loadavg.Close() }

// lastID returns the newest process id of this process namespace, the fifth
// word of /proc/loadavg.
func (p *processWatch) lastID() (int, error) {
	var buf [128]byte
	n, err := p.loadavg.ReadAt(buf[:], 0)
	fields := bytes.Fields(buf[:n])
	if len(fields) != 5 {
		return 0, fmt.Errorf("/proc/loadavg reads %q: %w", buf[:n], err)
	}
	return strconv.Atoi(string(fields[4]))
}

func (p *processWatch) look(now time.Time) error {
	last, err := p.lastID()
	if err != nil {
		return err
	}
	for id := p.last + 1; id <= last && p.last > 0; id++ {
		p.young[id] = &youngster{grown: now.Add(youth)}
	}
	if last < p.last || now.After(p.next) { // they begin again from the front, or it is time
		if err := p.lookAtAll(); err != nil {
			return err
		}
		p.next = now.Add(census)
	}
	p.last = last
	for id, y := range p.young {
		there, err := p.lookAt(id, y)
		if err != nil {
			return err
		}
		if !there || now.After(y.grown) {
			delete(p.young, id)
		}
	}
	return nil
}

func (p *processWatch) lookAtAll() error {
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, path := range paths {
		id, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			continue
		}
		if _, err := p.lookAt(id, &youngster{}); err != nil {
			return err
		}
	}
	return nil
}

// lookAt tells of a process that has executed something since the last look,
// and returns whether it is there.
func (p *processWatch) lookAt(id int, y *youngster) (there bool, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(id))
	cmdline, there := p.read(filepath.Join(dir, Cmdline))
	if !there || bytes.Equal(cmdline, y.cmdline) {
		return there, nil
	}
	y.cmdline = bytes.Clone(cmdline)
	if err := p.observe(Observation{Kind: Cmdline, Path: filepath.Join(dir, Cmdline), Data: y.cmdline}); err != nil {
		return true, err
	}
	environ, there := p.read(filepath.Join(dir, Environ))
	if len(environ) == 0 {
		return there, nil
	}
	return true, p.observe(Observation{Kind: Environ, Path: filepath.Join(dir, Environ), Data: bytes.Clone(environ)})
}

// maxProc is how much of a command line, and of an environment, is looked at,
// in bytes.
const maxProc = 64 << 10

// read reads a file of /proc, with few system calls, since it is done all the
// time. What it returns holds until the next read.
func (p *processWatch) read(path string) ([]byte, bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, p.buf)
	return p.buf[:max(n, 0)], err == nil
}
