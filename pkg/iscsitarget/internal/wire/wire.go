// Package wire is a TCP connection whose reader is woken without detours.
//
// Go's network poller hears of every segment that comes on a connection that it knows,
// also while nobody waits for one: on a busy connection a thread is woken for each
// command, for nothing. A [Conn] is unknown to the poller while it is busy: who waits
// for it does so in the system call. One that has been silent for a while waits in the
// poller, where it costs no thread.
//
// A goroutine that waits in a system call may keep a processor of Go's from others until
// Go notices, which takes it up to 10 ms. So no more of them do so at once than there
// are [Seats], and a program that serves gives Go as many processors more.
//
// What becomes of an initiator on the same machine while many commands are under way is in
// batch.go.
package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a TCP connection. One goroutine reads and one writes at a time; the other
// methods may be called concurrently. A deadline holds for what is called after it was
// set. Errors are those of package net.
type Conn struct {
	fd            int
	local, remote net.Addr
	// use counts the calls under way; from closing on there are no more of them, and
	// the last one closes fd.
	use atomic.Int64

	reading, writing waiter
	gauge            gauge
	flags            sync.Mutex // of fd, which both may change for a moment
	// The writer's.
	iov []unix.Iovec
	msg unix.Msghdr
}

var _ net.Conn = (*Conn)(nil)

const closing = 1 << 32

// New takes a connection over. Where that is not possible, for want of a descriptor, it
// returns an error and c is as it was.
func New(c *net.TCPConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	n := &Conn{local: c.LocalAddr(), remote: c.RemoteAddr()}
	n.reading.c, n.reading.events = n, unix.POLLIN
	n.writing.c, n.writing.events = n, unix.POLLOUT
	var dupErr error
	if err := raw.Control(func(fd uintptr) { n.fd, dupErr = duplicate(int(fd)) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, dupErr
	}
	err = errors.Join(c.Close(), n.block()) // Close takes it out of the poller
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// block has reading wait in the system call, for as long as a connection counts as busy.
func (c *Conn) block() error {
	limit := unix.NsecToTimeval(int64(busyPeriod))
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("fcntl", unix.SetNonblock(c.fd, false))
}

func duplicate(fd int) (int, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	return fd, os.NewSyscallError("fcntl", err)
}

// enter begins a call that uses fd.
func (c *Conn) enter() error {
	if c.use.Add(1) < closing {
		return nil
	}
	c.leave()
	return net.ErrClosed
}

// leave ends it.
func (c *Conn) leave() {
	if c.use.Add(-1) == closing && c.use.CompareAndSwap(closing, 2*closing) {
		c.reading.unpark()
		c.writing.unpark()
		_ = unix.Close(c.fd)
	}
}

// closed: Close was called.
func (c *Conn) closed() bool { return c.use.Load() >= closing }

// Close ends the connection, and the calls that wait for it.
func (c *Conn) Close() error {
	for {
		n := c.use.Load()
		if n >= closing {
			return c.failed("close", net.ErrClosed)
		}
		// The call of ours keeps fd.
		if c.use.CompareAndSwap(n, n+closing+1) {
			break
		}
	}
	_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // the peer may have been faster
	c.leave()
	return nil
}

// LocalAddr is this end's address.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines; the zero time is never.
func (c *Conn) SetDeadline(t time.Time) error {
	c.reading.deadline.set(t)
	c.writing.deadline.set(t)
	return nil
}

// SetReadDeadline sets when Read gives up waiting.
func (c *Conn) SetReadDeadline(t time.Time) error { c.reading.deadline.set(t); return nil }

// SetWriteDeadline sets when Write and AwaitRoom give up waiting.
func (c *Conn) SetWriteDeadline(t time.Time) error { c.writing.deadline.set(t); return nil }

// Descriptor is the number of the connection's file descriptor.
func (c *Conn) Descriptor() int { return c.fd }

// Read reads what is there, and waits for something where nothing is.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.enter(); err != nil {
		return 0, c.failed("read", err)
	}
	defer c.leave()
	for {
		n, err := c.readSeated(p)
		if errors.Is(err, unix.EAGAIN) {
			if _, err = c.reading.park(); err == nil {
				n, err = c.read(p)
			}
		}
		if err != nil && c.closed() {
			err = net.ErrClosed
		}
		if !errors.Is(err, unix.EAGAIN) {
			return n, c.failed("read", err)
		}
	}
}

// readSeated reads from a seat. EAGAIN, which is bare, says that there was none, or that
// nothing has come for as long as the connection counts as busy.
func (c *Conn) readSeated(p []byte) (int, error) {
	w := &c.reading
	if !w.sit() {
		return 0, unix.EAGAIN
	}
	defer w.rise()
	if left, limited := w.deadline.left(); limited && left < busyPeriod {
		// The system call knows no other time.
		if ready, err := w.poll(); !ready {
			return 0, err
		}
	}
	return c.read(p)
}

// read is one system call. EAGAIN is bare.
func (c *Conn) read(p []byte) (int, error) {
	for {
		n, err := syscall.Read(c.fd, p) // which the race detector knows as package net's
		switch {
		case errors.Is(err, syscall.EINTR):
			if _, err := c.reading.expired(); err != nil {
				return 0, err
			}
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Readable says that Read would return at once.
func (c *Conn) Readable() bool {
	if c.enter() != nil {
		return true
	}
	defer c.leave()
	return c.reading.ready(uintptr(c.fd))
}

// WriteNow writes as much of the parts as the connection takes at once: that may be
// nothing, which is no error. No part is empty, and there are 1024 of them at most.
func (c *Conn) WriteNow(parts [][]byte) (int, error) {
	if err := c.enter(); err != nil {
		return 0, c.failed("write", err)
	}
	defer c.leave()
	c.iov = c.iov[:0]
	for _, part := range parts {
		v := unix.Iovec{Base: &part[0]}
		v.SetLen(len(part))
		c.iov = append(c.iov, v)
	}
	defer clear(c.iov)
	for {
		n, err := c.sendmsg()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		case err != nil && c.closed():
			err = net.ErrClosed
		}
		return n, c.failed("write", err)
	}
}

// AwaitRoom waits until the connection takes something.
func (c *Conn) AwaitRoom() error {
	if err := c.enter(); err != nil {
		return c.failed("write", err)
	}
	defer c.leave()
	return c.failed("write", c.writing.wait())
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (done int, err error) {
	for done < len(p) {
		n, err := c.WriteNow([][]byte{p[done:]})
		if done += n; err == nil && n == 0 {
			err = c.AwaitRoom()
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// failed dresses an error as package net does.
func (c *Conn) failed(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if errno := unix.Errno(0); errors.As(err, &errno) {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}
