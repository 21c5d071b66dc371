package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// watching runs a watcher and returns where its observations arrive.
func watching(t *testing.T, what Watch) <-chan Observation {
	t.Helper()
	c, _ := serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	seen, begun, done := make(chan Observation), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, what, func() { close(begun) }, func(o Observation) {
			select {
			case seen <- o:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	select {
	case <-begun:
	case err := <-done:
		t.Fatal(err)
	}
	return seen
}

// await returns the first observation that is wanted.
func await(t *testing.T, seen <-chan Observation, want func(Observation) bool) Observation {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case o := <-seen:
			if want(o) {
				return o
			}
		case <-late:
			t.Fatal("not seen within 20 s")
		}
	}
}

func TestWatchProcesses(t *testing.T) {
	seen := watching(t, Watch{ProcessInterval: time.Millisecond, FileInterval: time.Second})
	c, _ := serve(t)
	command := Command{Args: []string{"sleep", "0.30303"}, Env: []string{"WATCHED=by-its-environment"}}
	if exit, err := c.Run(t.Context(), command, Streams{}); err != nil || !exit.Success() {
		t.Fatal(exit, err)
	}
	// The environment is told after the arguments.
	await(t, seen, func(o Observation) bool { return o.Kind == Cmdline && string(o.Data) == "sleep\x000.30303\x00" })
	await(t, seen, func(o Observation) bool {
		return o.Kind == Environ && strings.Contains(string(o.Data), "WATCHED=by-its-environment\x00")
	})
}

func TestWatchFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	seen := watching(t, Watch{ProcessInterval: time.Second, FileInterval: time.Millisecond, Files: []string{dir + "/rec*", dir + "/*/none"}})
	is := func(data string, mode os.FileMode) func(Observation) bool {
		return func(o Observation) bool {
			return o.Kind == File && o.Path == path && string(o.Data) == data && o.Mode == mode
		}
	}
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	step(os.WriteFile(filepath.Join(dir, "other"), []byte("not asked for"), 0o600))
	step(os.WriteFile(path, []byte("first"), 0o600))
	await(t, seen, is("first", 0o600))
	step(os.Chmod(path, 0o644))
	await(t, seen, is("first", 0o644))
	step(os.WriteFile(path+".new", []byte("after"), 0o600))
	step(os.Rename(path+".new", path))
	await(t, seen, is("after", 0o600))
	step(os.Remove(path))
	step(os.Mkdir(path, 0o700))
	step(os.WriteFile(path+"-2", []byte("last"), 0o600))
	await(t, seen, func(o Observation) bool { return o.Path == path+"-2" })
}

func TestWatcherTellsOnce(t *testing.T) {
	var told []Observation
	w := newWatcher(func(o Observation) error { told = append(told, o); return nil })
	for _, o := range []Observation{
		{Kind: Cmdline, Path: "/proc/1/cmdline", Data: []byte("a")},
		{Kind: Cmdline, Path: "/proc/2/cmdline", Data: []byte("a")}, // alike
		{Kind: Environ, Path: "/proc/2/environ", Data: []byte("a")},
		{Kind: File, Path: "/a", Mode: 0o600, Data: []byte("a")},
		{Kind: File, Path: "/a", Mode: 0o600, Data: []byte("a")}, // the same
		{Kind: File, Path: "/a", Mode: 0o640, Data: []byte("a")},
		{Kind: File, Path: "/b", Mode: 0o600, Data: []byte("a")},
	} {
		if err := w.observe(o); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 5 {
		t.Errorf("told %d times, want 5: %v", len(told), told)
	}
	broken := errors.New("broken")
	w.tell = func(Observation) error { return broken }
	if err := w.observe(Observation{Kind: Cmdline, Data: []byte("b")}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestWatchFails(t *testing.T) {
	c, _ := serve(t)
	if _, err := c.call(t.Context(), &request{Op: "watch"}); err == nil {
		t.Error("watched for nothing")
	}
	err := c.Watch(t.Context(), Watch{Files: []string{"[bad"}}, func() {}, func(Observation) {})
	if err == nil {
		t.Error("a bad glob ended in no error")
	}
}
