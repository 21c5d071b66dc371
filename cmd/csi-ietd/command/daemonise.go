package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// A program in Go cannot fork: the daemon is a child that runs the same command line,
// and tells its parent over a pipe what came of its start.

// daemonMark is in the environment of a daemon, with the number of its pipe.
const daemonMark = "CSI_IETD_DAEMON=3"

func isDaemon() bool {
	name, value, _ := strings.Cut(daemonMark, "=")
	return os.Getenv(name) == value
}

// daemonise starts the daemon and returns when it serves, or with why it does not.
func daemonise(ctx context.Context, stderr io.Writer) error {
	told, tells, err := os.Pipe()
	if err != nil {
		return err
	}
	defer told.Close() // it was read
	program, err := thisProgram()
	if err != nil {
		return err
	}
	cmd := exec.Command(program) //nolint:noctx // it outlives this process
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), daemonMark)
	cmd.Dir = "."
	cmd.ExtraFiles = []*os.File{tells}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = tells.Close() // the child has it
	if err != nil {
		return exitError{statusStart, fmt.Errorf("starting daemon failed: %w", err)}
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	said, err := io.ReadAll(io.LimitReader(told, 64<<10))
	if err == nil && string(said) == started {
		return cmd.Process.Release()
	}
	if _, werr := stderr.Write(said); werr != nil {
		err = errors.Join(err, werr)
	}
	return exitError{statusStart, errors.Join(errors.New("starting daemon failed"), err, cmd.Wait())}
}

// thisProgram is its path, under the name that it was called by, which ps shows.
func thisProgram() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	named, err := exec.LookPath(os.Args[0])
	if err != nil {
		return program, nil //nolint:nilerr // it was called by another path's name
	}
	a, errA := os.Stat(program)
	b, errB := os.Stat(named)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return named, nil
	}
	return program, nil
}

// started is what a daemon tells its parent when it serves; anything else is why not.
const started = "started\n"

// tellParent ends the parent's waiting, where there is one.
func tellParent(err error) {
	if !isDaemon() {
		return
	}
	pipe := os.NewFile(3, "parent")
	said := started
	if err != nil {
		said = "ietd: " + err.Error() + "\n"
	}
	_, _ = io.WriteString(pipe, said) // a parent that was killed hears nothing
	_ = pipe.Close()
	_ = os.Chdir("/") // no file system is kept from being unmounted
}
