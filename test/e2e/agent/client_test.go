package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	c, _ := serve(t)
	for name, tt := range map[string]struct {
		command     Command
		stdin       string
		out, errOut string
		exit        Exit
	}{
		"output":     {command: sh("echo out; echo err >&2"), out: "out\n", errOut: "err\n"},
		"status":     {command: sh("exit 7"), exit: Exit{Code: 7}},
		"signal":     {command: sh("kill -TERM $$"), exit: Exit{Code: -1, Signal: 15}},
		"input":      {command: sh("cat"), stdin: "to and fro", out: "to and fro"},
		"not read":   {command: sh("exec <&-; echo done"), stdin: strings.Repeat("x", 1<<20), out: "done\n"},
		"long input": {command: sh("wc -c"), stdin: strings.Repeat("x", 300<<10), out: "307200\n"},
		"directory":  {command: Command{Args: []string{"pwd"}}, out: "/\n"},
		"other":      {command: Command{Args: []string{"pwd"}, Dir: "/proc"}, out: "/proc\n"},
		"variables":  {command: Command{Args: []string{"sh", "-c", "echo $KEY"}, Env: []string{"KEY=a b"}}, out: "a b\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			exit, err := c.Run(t.Context(), tt.command, Streams{Stdin: strings.NewReader(tt.stdin), Stdout: &out, Stderr: &errOut})
			if err != nil || exit != tt.exit || out.String() != tt.out || errOut.String() != tt.errOut {
				t.Errorf("%v, %v, out %q, err %q; want %v, %q, %q", exit, err, out.String(), errOut.String(), tt.exit, tt.out, tt.errOut)
			}
		})
	}
}

func TestRunFails(t *testing.T) {
	c, _ := serve(t)
	if _, err := c.Run(t.Context(), Command{}, Streams{}); err == nil {
		t.Error("ran nothing")
	}
	if _, err := c.Run(t.Context(), Command{Args: []string{"no-such-program"}}, Streams{}); err == nil {
		t.Error("ran a program that is not there")
	}
	full := errors.New("full")
	if _, err := c.Run(t.Context(), sh("echo x"), Streams{Stdout: failingWriter{full}}); !errors.Is(err, full) {
		t.Errorf("output that could not be written: %v", err)
	}
}

type failingWriter struct{ error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.error }

// TestRunIsCancelled: the context's end ends the command on the other side.
func TestRunIsCancelled(t *testing.T) {
	c, _ := serve(t)
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	started, output := io.Pipe()
	alive := filepath.Join(t.TempDir(), "fifo")
	done := make(chan error, 1)
	go func() {
		_, err := c.Run(ctx, sh("mkfifo "+alive+"; echo; exec cat "+alive), Streams{Stdout: output})
		done <- err
	}()
	if _, err := io.ReadFull(started, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel(over)
	if err := <-done; !errors.Is(err, over) {
		t.Errorf("got %v, want the context's cause", err)
	}
	// The agent serves on, and its end, in the cleanup, waits for the command.
	if exit, err := c.Run(t.Context(), sh("true"), Streams{}); err != nil || !exit.Success() {
		t.Errorf("%v, %v", exit, err)
	}
}

func TestFiles(t *testing.T) {
	c, _ := serve(t)
	ctx, dir := t.Context(), t.TempDir()
	path := filepath.Join(dir, "new/file")
	content := bytes.Repeat([]byte{0, 255, '\n'}, 10000)
	if err := c.WriteFile(ctx, path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ReadFile(ctx, path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("read %d bytes, %v, want %d", len(got), err, len(content))
	}
	if err := c.Remove(ctx, filepath.Dir(path)); err == nil {
		t.Error("removed a directory with something in it")
	}
	if err := c.Remove(ctx, path); err != nil {
		t.Error(err)
	}
	if _, err := c.ReadFile(ctx, path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read a file that is gone: %v", err)
	}
	if err := c.Remove(ctx, path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed a file that is gone: %v", err)
	}
	if err := c.MkdirAll(ctx, filepath.Join(dir, "a/b/c"), 0o755); err != nil {
		t.Error(err)
	}
	if err := c.Remove(ctx, filepath.Join(dir, "a/b/c")); err != nil {
		t.Error(err)
	}
}

func TestConnectFails(t *testing.T) {
	refused := errors.New("refused")
	c := &Client{Connect: func(context.Context) (net.Conn, error) { return nil, refused }}
	if _, err := c.ReadFile(t.Context(), "/"); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	lost := &Client{Connect: func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		far.Close()
		return near, nil
	}}
	if _, err := lost.Run(t.Context(), sh("true"), Streams{}); err == nil {
		t.Error("ran on a connection that was closed")
	}
}
