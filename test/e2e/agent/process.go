package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// process is a background process begun by Start.
type process struct {
	cmd    *exec.Cmd
	cgroup string        // directory, or empty
	done   chan struct{} // closed after the process was reaped
	exit   Exit          // valid once done is closed
}

// drain is how long output is still read after a command has ended: a daemon
// that it left behind may hold the pipe open for ever.
const drain = time.Second

func command(c Command) *exec.Cmd {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = drain
	return cmd
}

// exitOf turns the answer of exec.Cmd.Wait into an Exit; any other failure,
// such as output that could not be written, is returned as an error.
func exitOf(cmd *exec.Cmd, err error) (Exit, error) {
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) && !errors.Is(err, exec.ErrWaitDelay) {
		return Exit{}, err
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return Exit{Code: -1, Signal: status.Signal()}, nil
	}
	return Exit{Code: status.ExitStatus()}, nil
}

// run executes a command with its streams on the connection. When the
// connection ends first, the command is killed with all that it has started.
func (s *Server) run(ctx context.Context, req *request, conn net.Conn) (reply, error) {
	if len(req.Command.Args) == 0 {
		return reply{}, errors.New("run: no command")
	}
	cmd := command(req.Command)
	out := &frameWriter{conn: conn}
	stdin, cleanup, err := attach(cmd, req.Command.TTY, out)
	if err != nil {
		return reply{}, err
	}
	defer cleanup()
	p := &process{cmd: cmd}
	if err := s.startAndReply(p, out); err != nil {
		return reply{}, err
	}
	defer p.leaveGroup()
	var input sync.WaitGroup
	// Ends when the client closes: until then it may be sending, and a reset
	// would cost it the exit frame.
	defer input.Wait()
	// The server's end is the command's too.
	finished, end := context.WithCancel(context.WithoutCancel(ctx))
	input.Go(func() {
		if feed(conn, stdin) != nil && finished.Err() == nil {
			_ = p.kill(syscall.SIGKILL)
		}
	})
	exit, err := exitOf(cmd, cmd.Wait())
	cleanup()
	end()
	if err != nil || out.exit(exit) != nil {
		conn.Close() // it broke: nobody listens
	}
	return reply{}, errHandled
}

// startAndReply starts the command. What it prints at once comes behind the
// reply.
func (s *Server) startAndReply(p *process, out *frameWriter) error {
	out.mu.Lock()
	defer out.mu.Unlock()
	if err := s.startInGroup(p); err != nil {
		return err
	}
	if err := writeMessage(out.conn, reply{ID: p.cmd.Process.Pid}); err != nil {
		_ = p.kill(syscall.SIGKILL)
	}
	return nil
}

// attach wires the command's streams to frames and returns where the client's
// stdin goes. cleanup may be called twice.
func attach(cmd *exec.Cmd, tty bool, out *frameWriter) (stdin io.WriteCloser, cleanup func(), err error) {
	if tty {
		return attachTTY(cmd, out)
	}
	cmd.Stdout, cmd.Stderr = out.stream(frameStdout), out.stream(frameStderr)
	stdin, err = cmd.StdinPipe()
	return stdin, func() {}, err
}

// feed copies stdin frames from the connection until it ends, and returns the
// error that ended it.
func feed(conn net.Conn, stdin io.WriteCloser) error {
	defer stdin.Close()
	buf := make([]byte, maxFrame)
	for {
		kind, payload, err := readFrame(conn, buf)
		if err != nil {
			return err
		}
		switch kind {
		case frameStdin:
			_, _ = stdin.Write(payload) // a command may end without reading its input
		case frameEOF:
			stdin.Close()
		default:
			return fmt.Errorf("unexpected frame %q", kind)
		}
	}
}

// frameWriter lets several streams share one connection.
type frameWriter struct {
	mu   sync.Mutex
	conn net.Conn
}

type frameStream struct {
	w    *frameWriter
	kind byte
}

func (w *frameWriter) stream(kind byte) io.Writer { return frameStream{w, kind} }

func (f frameStream) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxFrame)
		if err := f.w.write(f.kind, rest[:n]); err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

func (w *frameWriter) write(kind byte, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return writeFrame(w.conn, kind, payload)
}

func (w *frameWriter) exit(e Exit) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return w.write(frameExit, body)
}

// start begins a background process and answers with its handle.
func (s *Server) start(_ context.Context, req *request, _ net.Conn) (reply, error) {
	if len(req.Command.Args) == 0 {
		return reply{}, errors.New("start: no command")
	}
	log, err := os.OpenFile(req.Command.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return reply{}, err
	}
	defer log.Close()
	p := &process{cmd: command(req.Command), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := s.startInGroup(p); err != nil {
		return reply{}, err
	}
	go p.reap() // owned by the process itself: ends when it does
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	if s.started == nil {
		s.started = map[int]*process{}
	}
	s.started[s.lastID] = p
	return reply{ID: s.lastID}, nil
}

// startInGroup starts the process so that kill reaches its children too.
func (s *Server) startInGroup(p *process) error {
	if s.CgroupRoot == "" {
		return p.cmd.Start()
	}
	var err error
	if p.cgroup, err = os.MkdirTemp(s.CgroupRoot, "lab-"); err != nil {
		return err
	}
	dir, err := os.Open(p.cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	p.cmd.SysProcAttr.UseCgroupFD = true
	p.cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	return p.cmd.Start()
}

func (p *process) reap() {
	p.exit, _ = exitOf(p.cmd, p.cmd.Wait())
	close(p.done)
}

// leaveGroup removes the group, unless a daemon that the command left behind
// lives on in it.
func (p *process) leaveGroup() {
	if p.cgroup != "" {
		_ = os.Remove(p.cgroup)
	}
}

func (s *Server) find(id int) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.started[id]
	if p == nil {
		return nil, fmt.Errorf("no process with handle %d", id)
	}
	return p, nil
}

// signal sends a signal to a started process. SIGKILL reaches all that it
// has started too; any other signal reaches the process alone.
func (s *Server) signal(_ context.Context, req *request, _ net.Conn) (reply, error) {
	p, err := s.find(req.ID)
	if err != nil {
		return reply{}, err
	}
	return reply{}, p.kill(req.Signal)
}

func (p *process) kill(sig syscall.Signal) error {
	switch {
	case sig == syscall.SIGKILL && p.cgroup != "":
		return os.WriteFile(filepath.Join(p.cgroup, "cgroup.kill"), []byte("1"), 0)
	case sig == syscall.SIGKILL:
		return ignoreGone(syscall.Kill(-p.cmd.Process.Pid, sig))
	}
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// KillStarted kills every background process and waits for them.
func (s *Server) KillStarted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.started {
		select {
		case <-p.done:
		default:
			_ = p.kill(syscall.SIGKILL)
		}
		<-p.done
	}
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// wait answers when a started process has ended.
func (s *Server) wait(ctx context.Context, req *request, conn net.Conn) (reply, error) {
	p, err := s.find(req.ID)
	if err != nil {
		return reply{}, err
	}
	gone := make(chan struct{})
	go func() { // ends with the connection, which serveConn closes
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
	}()
	select {
	case <-p.done:
		return reply{Exit: p.exit}, nil
	case <-gone:
		return reply{}, errHandled
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}
