package agent

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// openTTY makes a pseudo-terminal pair. The master is non-blocking, so that a
// deadline can end a read of it.
func openTTY() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

// attachTTY gives the command a controlling terminal whose output goes to
// stdout frames.
func attachTTY(cmd *exec.Cmd, out *frameWriter) (io.WriteCloser, func(), error) {
	master, slave, err := openTTY()
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setctty = true
	var output sync.WaitGroup
	output.Go(func() { _, _ = io.Copy(out.stream(frameStdout), master) }) // EIO when the last slave closes
	cleanup := sync.OnceFunc(func() {
		slave.Close()
		_ = master.SetReadDeadline(time.Now().Add(drain))
		output.Wait()
		master.Close()
	})
	return nopCloser{master}, cleanup, nil
}

// nopCloser keeps the end of the client's input from hanging up the terminal.
type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
