package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestStartSignalWait(t *testing.T) {
	c, _ := serve(t)
	log := filepath.Join(t.TempDir(), "log")
	begin := func(script string) *Process {
		t.Helper()
		command := sh(script)
		command.Log = log
		p, err := c.Start(t.Context(), command)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		script string
		signal syscall.Signal
		want   Exit
	}{
		{"echo first", 0, Exit{}},
		{"echo second >&2; exit 3", 0, Exit{Code: 3}},
		{"exec sleep 1000", syscall.SIGTERM, Exit{Code: -1, Signal: syscall.SIGTERM}},
		{"trap '' TERM; sleep 1000 & wait", syscall.SIGKILL, Exit{Code: -1, Signal: syscall.SIGKILL}},
	} {
		p := begin(tt.script)
		if tt.signal != 0 {
			if err := p.Signal(t.Context(), tt.signal); err != nil {
				t.Error(err)
			}
		}
		if exit, err := p.Wait(t.Context()); err != nil || exit != tt.want {
			t.Errorf("%s: %v, %v, want %v", tt.script, exit, err, tt.want)
		}
		// Both are told again of what has ended.
		if exit, err := p.Wait(t.Context()); err != nil || exit != tt.want {
			t.Errorf("%s: again: %v, %v, want %v", tt.script, exit, err, tt.want)
		}
		if err := p.Signal(t.Context(), syscall.SIGTERM); err != nil {
			t.Errorf("%s: a signal after its end: %v", tt.script, err)
		}
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "first\nsecond\n" {
		t.Errorf("the log holds %q, %v", text, err)
	}
}

func TestStartFails(t *testing.T) {
	c, _ := serve(t)
	for _, command := range []Command{
		{Log: "/dev/null"},
		{Args: []string{"no-such-program"}, Log: "/dev/null"},
		{Args: []string{"true"}, Log: "/no/such/directory/log"},
	} {
		if p, err := c.Start(t.Context(), command); err == nil {
			t.Errorf("started %v: %v", command, p)
		}
	}
	unknown := &Process{c, 4711}
	if _, err := unknown.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "4711") {
		t.Errorf("waited for a process that was not started: %v", err)
	}
	if err := unknown.Signal(t.Context(), syscall.SIGTERM); err == nil {
		t.Error("sent a signal to a process that was not started")
	}
}

func TestWaitIsCancelled(t *testing.T) {
	c, s := serve(t)
	p, err := c.Start(t.Context(), Command{Args: []string{"sleep", "1000"}, Log: "/dev/null"})
	if err != nil {
		t.Fatal(err)
	}
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if _, err := p.Wait(ctx); !errors.Is(err, over) {
		t.Errorf("got %v, want the context's cause", err)
	}
	s.KillStarted()
	if exit, err := p.Wait(t.Context()); err != nil || exit.Signal != syscall.SIGKILL {
		t.Errorf("after KillStarted: %v, %v", exit, err)
	}
}

// TestDaemonDoesNotHoldRun: a command that leaves a child behind with its
// output open has ended when it has ended.
func TestDaemonDoesNotHoldRun(t *testing.T) {
	c, _ := serve(t)
	pid := filepath.Join(t.TempDir(), "pid")
	exit, err := c.Run(t.Context(), sh("setsid sleep 1000 & echo $! >"+pid), Streams{})
	if err != nil || !exit.Success() {
		t.Errorf("%v, %v", exit, err)
	}
	if exit, err := c.Run(t.Context(), sh("kill $(cat "+pid+")"), Streams{}); err != nil || !exit.Success() {
		t.Errorf("the daemon was gone: %v, %v", exit, err)
	}
}

// TestReplyComesFirst: a command may print before the server has gone on from
// starting it; the reply is still the first thing that the client reads.
func TestReplyComesFirst(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	out := &frameWriter{conn: far}
	p := &process{cmd: command(sh("echo early"))}
	p.cmd.Stdout = out.stream(frameStdout)
	done := make(chan error, 1)
	go func() {
		done <- errors.Join(new(Server).startAndReply(p, out), p.cmd.Wait(), far.Close())
	}()
	var r reply
	if err := readMessage(near, &r); err != nil || r.ID == 0 {
		t.Errorf("the reply: %v, %v", r, err)
	}
	kind, payload, err := readFrame(near, make([]byte, maxFrame))
	if err != nil || kind != frameStdout || string(payload) != "early\n" {
		t.Errorf("then: %q %q, %v", kind, payload, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
