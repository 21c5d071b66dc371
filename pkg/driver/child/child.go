// Package child runs programs and blocking system calls that a dead target can
// hold up: everything ends with its context, and what the kernel will not let
// go of is handed to a [Tracker] instead of blocking its caller.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// maxOutput bounds what is kept of each of a program's two outputs.
	maxOutput = 64 << 10
	// killGrace is how long a killed program may take to disappear before
	// it counts as stuck.
	killGrace = 2 * time.Second
)

// ErrStuck is a program or system call that the kernel has not let go of; it
// is added to the context's error. What it was doing may still happen.
var ErrStuck = errors.New("stuck in the kernel")

// ErrNoProgram is a program that is not installed.
var ErrNoProgram = errors.New("program not found")

// Runner runs a program to its end. Arguments are visible to everybody on the
// machine: never a secret among them.
type Runner interface {
	// Run returns the standard output. A non-zero exit status is an
	// [*ExitError]. When ctx ends first the program is killed, with its
	// children, and the error is the context's.
	Run(ctx context.Context, name string, args ...string) (string, error)
}

// ExitError is a program's failure.
type ExitError struct {
	Name string
	// Code is the exit status, -1 after a signal.
	Code int
	// Stdout and Stderr are the beginning of its outputs.
	Stdout, Stderr string
}

func (e *ExitError) Error() string {
	text := strings.TrimSpace(e.Stderr)
	if text == "" {
		text = strings.TrimSpace(e.Stdout)
	}
	if len(text) > 512 {
		text = text[:512] + "..."
	}
	return fmt.Sprintf("%s failed with exit status %d: %s", e.Name, e.Code, text)
}

// ExitCode returns the exit status in err: 0 for nil, and false where err is
// no program's exit.
func ExitCode(err error) (int, bool) {
	if err == nil {
		return 0, true
	}
	var exit *ExitError
	if errors.As(err, &exit) {
		return exit.Code, true
	}
	return 0, false
}

// OS is the Runner of this machine.
type OS struct{}

var _ Runner = OS{}

// Run implements Runner.
func (OS) Run(ctx context.Context, name string, args ...string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	path, err := lookPath(name)
	if err != nil {
		return "", err
	}
	var stdout, stderr output
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"PATH=" + searchPath, "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Its own process group, to kill its children too; and it must not
	// outlive us: a mkfs that nobody watches would race the next one.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = killGrace

	err = wait(ctx, cmd)
	if errors.Is(err, ErrStuck) {
		// The outputs are still being written to.
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return stdout.String(), exitError(ctx, cmd, err, &stdout, &stderr)
}

// wait runs cmd and kills it when ctx ends.
func wait(ctx context.Context, cmd *exec.Cmd) error {
	started, done := make(chan error, 1), make(chan error, 1)
	reap := func() {
		// The death signal is tied to the thread that forks.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			err = cmd.Wait()
		}
		done <- err
	}
	release := track(ctx, reap)
	if err := <-started; err != nil {
		release()
		return err
	}
	select {
	case err := <-done:
		release()
		return err
	case <-ctx.Done():
	}
	// The group exists until its leader is reaped, and a reaped one gives
	// ESRCH: nobody else can be hit within this moment.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	grace := time.NewTimer(killGrace)
	defer grace.Stop()
	select {
	case err := <-done:
		release()
		return errors.Join(ctx.Err(), err)
	case <-grace.C:
		return errors.Join(ErrStuck, ctx.Err())
	}
}

func exitError(ctx context.Context, cmd *exec.Cmd, err error, stdout, stderr *output) error {
	name := cmd.Path[strings.LastIndexByte(cmd.Path, '/')+1:]
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, ctx.Err())
	case errors.As(err, &exit):
		return &ExitError{Name: name, Code: exit.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
	}
	return fmt.Errorf("%s: %w", name, err)
}

// output keeps the first maxOutput bytes and swallows the rest. The buffer is
// not embedded: its ReadFrom would go around Write.
type output struct{ kept bytes.Buffer }

func (o *output) Write(p []byte) (int, error) {
	if room := maxOutput - o.kept.Len(); room > 0 {
		o.kept.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (o *output) String() string { return o.kept.String() }
