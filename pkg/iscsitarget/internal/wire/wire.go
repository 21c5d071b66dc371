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
package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
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
			if err = c.reading.park(); err == nil {
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

// deadline is a time in nanoseconds since 1970; 0 is never.
type deadline struct{ ns atomic.Int64 }

func (d *deadline) set(t time.Time) {
	if t.IsZero() {
		d.ns.Store(0)
	} else {
		d.ns.Store(t.UnixNano())
	}
}

// left is how long it is until then, and false for never.
func (d *deadline) left() (time.Duration, bool) {
	ns := d.ns.Load()
	return time.Duration(ns - time.Now().UnixNano()), ns != 0
}

// busyPeriod is how long a connection is waited for in a system call, after which it
// counts as idle.
const busyPeriod = 20 * time.Millisecond

// pollerTurns is how many times a connection waits in the poller once it does so for
// want of a seat: to go there and come back costs more than to wait.
const pollerTurns = 256

// Seats is how many connections are waited for in a system call at once, in the whole
// process.
var Seats = max(16, 4*runtime.NumCPU())

var seated atomic.Int64

// waiter waits for one direction of a connection.
type waiter struct {
	c        *Conn
	events   int16
	deadline deadline

	poller *os.File // nil while the poller does not know the connection
	turns  int      // that it waits there at least
}

// wait returns when the connection is ready, or its end has come.
func (w *waiter) wait() error {
	if w.sit() {
		ready, err := w.poll()
		w.rise()
		if ready || err != nil && !errors.Is(err, unix.EAGAIN) {
			return err
		}
	}
	return w.park()
}

// sit takes a seat, where there is one.
func (w *waiter) sit() bool {
	if w.turns > 0 {
		w.turns--
		return false
	}
	if seated.Add(1) > int64(Seats) {
		seated.Add(-1)
		w.turns = pollerTurns
		return false
	}
	w.unpark()
	return true
}

// rise gives it back.
func (w *waiter) rise() { seated.Add(-1) }

// expired says how long is left until the deadline, and fails when it has come.
func (w *waiter) expired() (left time.Duration, err error) {
	left, limited := w.deadline.left()
	if limited && left <= 0 {
		return 0, os.ErrDeadlineExceeded
	}
	if !limited {
		left = busyPeriod
	}
	return left, nil
}

// poll waits in the system call for as long as the connection counts as busy, which the
// bare EAGAIN says that it does no more.
func (w *waiter) poll() (ready bool, err error) {
	end := time.Now().Add(busyPeriod)
	for {
		left, err := w.expired()
		if err != nil {
			return false, err
		}
		left = min(left, time.Until(end))
		if left <= 0 {
			return false, unix.EAGAIN
		}
		fds := [1]unix.PollFd{{Fd: int32(w.c.fd), Events: w.events}} //nolint:gosec // a descriptor
		timeout := unix.NsecToTimespec(int64(left))
		n, err := unix.Ppoll(fds[:], &timeout, nil)
		switch {
		case n > 0:
			return true, nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return false, os.NewSyscallError("ppoll", err)
		}
	}
}

// park waits in the poller. The poller knows the connection by a descriptor of its own.
func (w *waiter) park() error {
	if w.poller == nil {
		fd, err := duplicate(w.c.fd)
		if err != nil {
			return err
		}
		w.poller = w.c.toPoller(fd)
	}
	if w.turns == 0 {
		defer w.unpark()
	}
	var by time.Time
	if ns := w.deadline.ns.Load(); ns != 0 {
		by = time.Unix(0, ns)
	}
	if w.events == unix.POLLIN {
		return w.parked(w.poller.SetReadDeadline(by), syscallConn.Read)
	}
	return w.parked(w.poller.SetWriteDeadline(by), syscallConn.Write)
}

// toPoller has the poller know the connection by fd. It takes only what does not block: a
// read that finds the connection so for a moment waits in the poller, too.
func (c *Conn) toPoller(fd int) *os.File {
	c.flags.Lock()
	defer c.flags.Unlock()
	_ = unix.SetNonblock(fd, true)
	defer func() { _ = unix.SetNonblock(fd, false) }()
	return os.NewFile(uintptr(fd), "connection")
}

// syscallConn is [syscall.RawConn].
type syscallConn interface {
	Read(f func(fd uintptr) (done bool)) error
	Write(f func(fd uintptr) (done bool)) error
}

func (w *waiter) parked(err error, await func(syscallConn, func(uintptr) bool) error) error {
	if err != nil {
		return err
	}
	raw, err := w.poller.SyscallConn()
	if err != nil {
		return err
	}
	err = await(raw, w.ready)
	if os.IsTimeout(err) {
		return os.ErrDeadlineExceeded
	}
	return err
}

// ready asks whether the connection is ready now.
func (w *waiter) ready(fd uintptr) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: w.events}} //nolint:gosec // a descriptor
	n, err := unix.Poll(fds[:], 0)
	return n > 0 || err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN)
}

// unpark has the poller forget the connection.
func (w *waiter) unpark() {
	if w.poller != nil {
		_ = w.poller.Close()
		w.poller = nil
	}
}
