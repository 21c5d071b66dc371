package lab

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

// Interact gives the caller's terminal to a shell in the guest until it ends.
func (g *Guest) Interact(ctx context.Context) error {
	fd := int(os.Stdin.Fd())
	start := "exec bash -i"
	if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
		start = fmt.Sprintf("stty rows %d cols %d; %s", size.Row, size.Col, start)
	}
	restore, err := makeRaw(fd)
	if err != nil {
		return err
	}
	defer restore()
	_, err = g.Run(ctx, agent.Command{
		Args: []string{"bash", "-c", start},
		Env:  []string{"TERM=" + os.Getenv("TERM"), "PS1=" + g.Name + ":\\w# "},
		Dir:  "/root",
		TTY:  true,
	}, agent.Streams{Stdin: os.Stdin, Stdout: os.Stdout})
	return err
}

// makeRaw hands every key to the reader, so that the guest's terminal does the
// editing. What is not a terminal is left alone.
func makeRaw(fd int) (restore func(), err error) {
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}, nil //nolint:nilerr // a pipe or a file: nothing to prepare
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }, nil
}
