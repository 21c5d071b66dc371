package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// power is one boot of a guest: its process and the end of it.
type power struct {
	cmd  *exec.Cmd
	life context.Context // done when the machine has no power any more
	off  context.CancelCauseFunc
	gone chan struct{} // closed when the processes have been reaped
}

// errPowerOff is why an operation on a guest fails when its power is cut.
var errPowerOff = errors.New("the guest has no power")

// turnOn starts a guest's kernel as a process group of its own: UML forks
// helpers that must go with it.
func turnOn(cmd *exec.Cmd) (*power, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &power{cmd: cmd, gone: make(chan struct{})}
	p.life, p.off = context.WithCancelCause(context.Background())
	go p.reap() // ends with the process
	return p, nil
}

// reap waits for the kernel and all its helpers.
func (p *power) reap() {
	running, ended := context.WithCancel(p.life)
	var waker sync.WaitGroup
	waker.Go(func() { p.keepAwake(running) })
	_ = p.cmd.Wait()
	ended()
	pid := p.cmd.Process.Pid
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	for {
		if _, err := syscall.Wait4(-pid, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	waker.Wait()
	p.off(errPowerOff)
	close(p.gone)
}

// wakeInterval is how long a guest that has lost its timer stands still.
const wakeInterval = time.Second

// keepAwake is a second timer for the guest. UML's own is one-shot, a SIGALRM,
// and now and then one is lost: then none follows, since the next is set by the
// one before. A busy program has the guest's processor for good, and nothing
// that sleeps wakes up. Any SIGALRM sets the timer again, and one too many does
// no harm.
func (p *power) keepAwake(running context.Context) {
	tick := time.NewTicker(wakeInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// A kernel that does not catch it yet would end by it.
			if catches(p.cmd.Process.Pid, syscall.SIGALRM) {
				_ = p.cmd.Process.Signal(syscall.SIGALRM) // the process may have ended
			}
		case <-running.Done():
			return
		}
	}
}

// catches tells whether a process has a handler for a signal.
func catches(pid int, signal syscall.Signal) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(status), "\nSigCgt:\t")
	mask, _, _ := strings.Cut(rest, "\n")
	caught, err := strconv.ParseUint(mask, 16, 64)
	return err == nil && caught>>(signal-1)&1 == 1
}
