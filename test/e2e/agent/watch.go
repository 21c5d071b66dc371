package agent

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Watch says what to look at.
type Watch struct {
	// Files are globs. What a file that matches holds is told each time that
	// it is seen changed.
	Files []string
	// FileInterval is how often the globs are gone through, and
	// ProcessInterval how often new processes are looked for.
	FileInterval, ProcessInterval time.Duration
}

// Kinds of an [Observation].
const (
	Cmdline = "cmdline" // of a process, its arguments ended by NUL
	Environ = "environ" // of a process
	File    = "file"
)

// Observation is one thing that a watcher saw, told once.
type Observation struct {
	Kind string
	Path string      // of the file, or the process's in /proc
	Mode fs.FileMode `json:",omitzero"` // of a file
	Data []byte
}

// maxObservation bounds what is read of one file, in bytes.
const maxObservation = 1 << 20

// watch tells what it sees until the client closes the connection.
func (s *Server) watch(ctx context.Context, req *request, conn net.Conn) (reply, error) {
	if req.Watch == nil {
		return reply{}, errors.New("watch: for what?")
	}
	w := newWatcher(func(o Observation) error {
		body, err := json.Marshal(o)
		if err != nil {
			return err
		}
		return writeFrame(conn, frameSeen, body)
	})
	processes, err := newProcessWatch(w)
	if err != nil {
		return reply{}, err
	}
	defer processes.Close()
	files := fileWatch{watcher: w, globs: req.Watch.Files, known: map[string]fileState{}}
	if err := writeMessage(conn, reply{}); err != nil {
		return reply{}, err
	}
	gone, end := context.WithCancel(ctx)
	go func() { // ends with the connection, which serveConn closes
		defer end()
		_, _ = io.Copy(io.Discard, conn)
	}()
	_ = w.run(gone, processes, &files, req.Watch)
	return reply{}, errHandled
}

// watcher tells of each thing once.
type watcher struct {
	seen map[[sha256.Size]byte]struct{}
	tell func(Observation) error
}

func newWatcher(tell func(Observation) error) *watcher {
	return &watcher{map[[sha256.Size]byte]struct{}{}, tell}
}

func (w *watcher) observe(o Observation) error {
	// Of processes that are alike one stands for all.
	key := o.Kind + "\x00"
	if o.Kind == File {
		key += fmt.Sprintf("%s\x00%o\x00", o.Path, o.Mode)
	}
	sum := sha256.Sum256(append([]byte(key), o.Data...))
	if _, ok := w.seen[sum]; ok {
		return nil
	}
	w.seen[sum] = struct{}{}
	return w.tell(o)
}

// run looks until ctx is done.
func (w *watcher) run(ctx context.Context, processes *processWatch, files *fileWatch, what *Watch) error {
	if err := beRealTime(); err != nil {
		return err
	}
	pause := unix.NsecToTimespec(max(what.ProcessInterval, time.Millisecond).Nanoseconds())
	for nextFiles := time.Now(); ctx.Err() == nil; {
		now := time.Now()
		if err := processes.look(now); err != nil {
			return err
		}
		if now.After(nextFiles) {
			nextFiles = now.Add(what.FileInterval)
			if err := files.look(); err != nil {
				return err
			}
		}
		// Not a timer of the runtime's: it would fire on another thread.
		_ = unix.Nanosleep(&pause, nil)
	}
	return nil
}

// beRealTime gives the calling goroutine a thread of its own that runs as soon
// as it wants to: a program of some milliseconds is to be seen also where one
// processor is busy. The goroutine never unlocks, and so takes the thread along
// when it ends.
func beRealTime() error {
	runtime.LockOSThread()
	err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
	if err != nil {
		return fmt.Errorf("real-time priority: %w", err)
	}
	return nil
}

// Watch calls see for all that is seen on the agent's machine until ctx is
// done, which is no error. It returns at once when it cannot begin; begun is
// called when the watcher watches.
func (c *Client) Watch(ctx context.Context, what Watch, begun func(), see func(Observation)) error {
	conn, _, end, err := c.begin(ctx, &request{Op: "watch", Watch: &what})
	if err != nil {
		return err
	}
	defer end()
	defer conn.Close()
	begun()
	in, buf := bufio.NewReaderSize(conn, maxFrame), make([]byte, 2*maxObservation)
	for {
		kind, payload, err := readFrame(in, buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the watcher has ended: %w", err)
		}
		var o Observation
		if kind != frameSeen || json.Unmarshal(payload, &o) != nil {
			return errors.New("the watcher sends what is no observation")
		}
		see(o)
	}
}
