package wire

import (
	"cmp"
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// began is what deadlines are counted from: on the monotonic clock, since the machine's may
// be put on or back.
var began = time.Now()

// deadline is a time in nanoseconds since began; 0 is never.
type deadline struct{ ns atomic.Int64 }

func (d *deadline) set(t time.Time) {
	if t.IsZero() {
		d.ns.Store(0)
	} else {
		d.ns.Store(cmp.Or(int64(t.Sub(began)), -1))
	}
}

// left is how long it is until then, and false for never.
func (d *deadline) left() (time.Duration, bool) {
	ns := d.ns.Load()
	return time.Duration(ns) - time.Since(began), ns != 0
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
	for {
		if w.sit() {
			ready, err := w.poll()
			w.rise()
			if ready || err != nil && !errors.Is(err, unix.EAGAIN) {
				return err
			}
		}
		if ready, err := w.park(); ready || err != nil {
			return err
		}
	}
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

// park waits in the poller, or where that cannot be, for want of a descriptor, in the
// system call, and then no longer than a connection counts as busy.
func (w *waiter) park() (ready bool, err error) {
	if w.register() != nil {
		if ready, err = w.poll(); errors.Is(err, unix.EAGAIN) {
			err = nil
		}
		return ready, err
	}
	if w.turns == 0 {
		defer w.unpark()
	}
	raw, err := w.poller.SyscallConn()
	switch {
	case err != nil:
	case w.events == unix.POLLIN:
		err = raw.Read(w.ready)
	default:
		err = raw.Write(w.ready)
	}
	if os.IsTimeout(err) {
		err = os.ErrDeadlineExceeded
	}
	return err == nil, err
}

// register has the poller know the connection, by a descriptor of its own, and its
// deadline.
func (w *waiter) register() error {
	if w.poller == nil {
		fd, err := duplicate(w.c.fd)
		if err != nil {
			return err
		}
		w.poller = w.c.toPoller(fd)
	}
	var by time.Time
	if ns := w.deadline.ns.Load(); ns != 0 {
		by = began.Add(time.Duration(ns))
	}
	set := w.poller.SetReadDeadline
	if w.events == unix.POLLOUT {
		set = w.poller.SetWriteDeadline
	}
	err := set(by)
	if err != nil { // the poller did not take it
		w.unpark()
	}
	return err
}

// toPoller makes a file of fd that the poller knows. It takes only what does not block: a
// read that finds the connection so for a moment waits in the poller, too.
func (c *Conn) toPoller(fd int) *os.File {
	c.flags.Lock()
	defer c.flags.Unlock()
	_ = unix.SetNonblock(fd, true)
	defer func() { _ = unix.SetNonblock(fd, false) }()
	return os.NewFile(uintptr(fd), "connection")
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
