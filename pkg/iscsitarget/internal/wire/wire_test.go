package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a Conn and its peer, which are closed with the test.
func pair(t testing.TB) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(accepted.(*net.TCPConn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = peer.Close()
		_ = c.Close() // some tests have
		if !c.closed() {
			t.Error("still open")
		}
	})
	return c, peer.(*net.TCPConn)
}

// unseated runs f once with seats for everybody, and once with none, where everybody
// waits in the poller.
func unseated(t *testing.T, f func(t *testing.T)) {
	t.Run("seated", f)
	before := Seats
	defer func() { Seats = before }()
	Seats = 0
	t.Run("in the poller", f)
}

func TestReadAndWrite(t *testing.T) {
	unseated(t, func(t *testing.T) {
		c, peer := pair(t)
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // more than the socket takes at once
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { _, _ = io.Copy(peer, peer) })
		wg.Go(func() {
			if n, err := c.Write(want); n != len(want) || err != nil {
				t.Errorf("wrote %d bytes: %v", n, err)
			}
		})
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("other bytes came back (%v)", err)
		}
		_ = peer.CloseWrite()
		if n, err := c.Read(got); n != 0 || err != io.EOF { //nolint:errorlint // bare, as of an io.Reader
			t.Errorf("read %d bytes at the end: %v", n, err)
		}
		_ = peer.Close()
	})
}

// What is silent for longer than a connection counts as busy still hears what comes, and
// is busy again.
func TestIdle(t *testing.T) {
	c, peer := pair(t)
	for range 3 {
		var wg sync.WaitGroup
		wg.Go(func() {
			b := make([]byte, 10)
			if n, err := c.Read(b); string(b[:n]) != "x" || err != nil {
				t.Errorf("read %q: %v", b[:n], err)
			}
		})
		awaitPoller(t, c)
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if c.reading.poller != nil {
			t.Error("a busy connection is known to the poller")
		}
	}
}

// awaitPoller returns when the connection's reader waits in the poller.
func awaitPoller(t *testing.T, c *Conn) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	before := descriptors(t)
	for deadline := time.Now().Add(10 * time.Second); descriptors(t) <= before; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it never waits in the poller")
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestDeadlines(t *testing.T) {
	unseated(t, func(t *testing.T) {
		c, _ := pair(t)
		for _, patience := range []time.Duration{-time.Second, time.Millisecond, 3 * busyPeriod} {
			start := time.Now()
			_ = c.SetReadDeadline(start.Add(patience))
			_, err := c.Read(make([]byte, 1))
			var ne net.Error
			if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() || took < patience {
				t.Errorf("%v after %v, not %v", err, took, patience)
			}
		}
		_ = c.SetDeadline(time.Now().Add(2 * busyPeriod))
		if n, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
			t.Errorf("wrote %d bytes that nobody takes: %v", n, err)
		}
		_ = c.SetDeadline(time.Time{})
	})
}

// Close ends the calls that wait, in either place.
func TestClose(t *testing.T) {
	unseated(t, func(t *testing.T) {
		for _, idle := range []bool{false, true} {
			c, _ := pair(t)
			errs := make(chan error)
			before := descriptors(t)
			go func() {
				_, err := c.Read(make([]byte, 1))
				errs <- err
			}()
			go func() {
				_, err := c.Write(make([]byte, 64<<20))
				errs <- err
			}()
			for idle && descriptors(t) < before+2 {
				<-time.After(time.Millisecond)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := <-errs; !errors.Is(err, net.ErrClosed) {
					t.Errorf("idle: %v: %v", idle, err)
				}
			}
			if err := c.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed again: %v", err)
			}
			if _, err := c.Read(nil); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v", err)
			}
			if _, err := c.WriteNow([][]byte{{1}}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write: %v", err)
			}
			if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); err == nil && descriptors(t) >= before {
				t.Error("its descriptor is still there")
			}
		}
	})
}

// withoutDescriptors runs f while the process gets no other descriptor.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}()
	f()
}

// A connection outlives a want of descriptors, and keeps to its deadline.
func TestNoDescriptors(t *testing.T) {
	unseated(t, func(t *testing.T) {
		c, peer := pair(t)
		withoutDescriptors(t, func() {
			_ = c.SetDeadline(time.Now().Add(3 * busyPeriod))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v", err)
			}
			if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write: %v", err)
			}
			_ = c.SetDeadline(time.Time{})
			time.AfterFunc(2*busyPeriod, func() { _, _ = peer.Write([]byte("x")) })
			b := make([]byte, 1)
			if n, err := c.Read(b); n != 1 || b[0] != 'x' || err != nil {
				t.Errorf("read %d bytes: %v", n, err)
			}
		})
	})
}

// A peer that is gone is told by errors of package net.
func TestReset(t *testing.T) {
	c, peer := pair(t)
	_ = peer.SetLinger(0)
	_ = peer.Close()
	_, err := c.Read(make([]byte, 1))
	var op *net.OpError
	if !errors.Is(err, unix.ECONNRESET) || !errors.As(err, &op) || op.Addr == nil {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Write([]byte{1}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write: %v", err)
	}
}

// WriteNow takes what fits, in the order of the parts.
func TestWriteNow(t *testing.T) {
	c, peer := pair(t)
	block := bytes.Repeat([]byte{7}, 1<<20)
	sent := 0
	for {
		n, err := c.WriteNow([][]byte{block[:100], block[100:200], block})
		if err != nil {
			t.Fatal(err)
		}
		if sent += n; n == 0 {
			break
		}
	}
	got := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, peer)
		got <- n
	}()
	if err := c.AwaitRoom(); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	if n := <-got; n != int64(sent) {
		t.Errorf("%d bytes came of %d", n, sent)
	}
}

// A round trip allocates nothing.
// What has come, and the end, can be read without waiting.
func TestReadable(t *testing.T) {
	c, peer := pair(t)
	if c.Readable() {
		t.Error("readable before anything has come")
	}
	b := make([]byte, 2)
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"two bytes", func() error { _, err := peer.Write(b); return err }},
		{"one byte left", func() error { _, err := c.Read(b[:1]); return err }},
		{"the end", func() error { return errors.Join(peer.CloseWrite(), read(c, b[:1])) }},
		{"closed", c.Close},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		for late := time.Now().Add(10 * time.Second); !c.Readable(); runtime.Gosched() { // it may be on its way
			if time.Now().After(late) {
				t.Fatalf("%s: not readable", step.what)
			}
		}
	}
}

func read(c *Conn, p []byte) error {
	_, err := io.ReadFull(c, p)
	return err
}

func TestAllocations(t *testing.T) {
	c, peer := pair(t)
	out, in := [][]byte{{1}, {2}}, make([]byte, 2)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := peer.Write(in); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			t.Error(err)
		}
		if _, err := c.WriteNow(out); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(peer, in); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// AwaitRoom returns when there is room, also for want of descriptors: who writes as long
// as the peer takes something relies on it.
func TestAwaitRoomWithoutDescriptors(t *testing.T) {
	unseated(t, func(t *testing.T) {
		c, _ := pair(t)
		for n := 1; n > 0; {
			var err error
			if n, err = c.WriteNow([][]byte{make([]byte, 1<<20)}); err != nil {
				t.Fatal(err)
			}
		}
		withoutDescriptors(t, func() {
			_ = c.SetWriteDeadline(time.Now().Add(5 * busyPeriod))
			if err := c.AwaitRoom(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("there is room: %v", err)
			}
		})
	})
}

// steppedBy is t as if it had been said before the machine's clock was put on, or back: its
// monotonic reading is what it was.
func steppedBy(by time.Duration, t time.Time) time.Time {
	// The first word of one with a monotonic reading holds seconds above 30 bits.
	*(*int64)(unsafe.Pointer(&t)) -= int64(by/time.Second) << 30 //nolint:gosec // no test can put the clock
	return t
}

// Deadlines do not hang on the machine's clock, which may be put on or back.
func TestDeadlinesAndTheClock(t *testing.T) {
	const patience = 3 * busyPeriod
	unseated(t, func(t *testing.T) {
		for _, by := range []time.Duration{time.Hour, -time.Hour} {
			c, _ := pair(t)
			start := time.Now()
			late := time.AfterFunc(10*time.Second, func() { _ = c.Close() })
			_ = c.SetDeadline(steppedBy(by, start.Add(patience)))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) < patience {
				t.Errorf("%v: read: %v after %v", by, err, time.Since(start))
			}
			start = time.Now()
			_ = c.SetDeadline(steppedBy(by, start.Add(patience)))
			if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) < patience {
				t.Errorf("%v: write: %v after %v", by, err, time.Since(start))
			}
			late.Stop()
		}
	})
}
