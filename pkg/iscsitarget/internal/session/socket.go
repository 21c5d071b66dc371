package session

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// writeBatch bounds the PDUs of one vectored write: of four parts each at most, where
// the kernel takes 1024.
const writeBatch = 256

// socket writes PDUs to a connection, many with one system call: at once, as far as the
// connection takes them, or waiting for it. One goroutine uses it at a time.
type socket struct {
	conn    net.Conn
	nowait  nowaiter // nil where the connection is none: it is always waited for
	window  *window
	timeout time.Duration
	digests pdu.Digests // of every PDU in full-feature phase

	batch []outgoing // that is being written
	next  int        // the first of batch that is not in vec
	vec   net.Buffers
	parts net.Buffers // the memory of vec

}

// nowaiter is a connection that can be used without waiting: [wire.Conn].
type nowaiter interface {
	// WriteNow writes as much as the connection takes at once.
	WriteNow(parts [][]byte) (int, error)
	// AwaitRoom waits until it takes something.
	AwaitRoom() error
	// Readable says that reading would not wait.
	Readable() bool
	// Gauge is told by the reader whether the initiator has many commands under way.
	Gauge(deep bool)
}

func newSocket(conn net.Conn, w *window, timeout time.Duration, d pdu.Digests) *socket {
	s := &socket{conn: conn, window: w, timeout: timeout, digests: d}
	s.nowait, _ = conn.(nowaiter)
	return s
}

// begin has a batch written next.
func (s *socket) begin(batch []outgoing) { s.batch, s.next = batch, 0 }

// more: there is something left to write, which is in vec then.
func (s *socket) more() bool {
	if len(s.vec) > 0 {
		return true
	}
	n := min(len(s.batch)-s.next, writeBatch)
	if n == 0 {
		return false
	}
	s.parts = s.parts[:0]
	for i := range s.batch[s.next : s.next+n] {
		p := &s.batch[s.next+i]
		// The window is read as late as can be: it only ever opens.
		p.header.SetWindow(s.window.advertised())
		s.parts = p.appendTo(s.parts, s.digests)
	}
	s.next += n
	s.vec = s.parts
	return true
}

// writeNow writes what the connection takes at once; false means that something is left,
// which is to be waited for.
func (s *socket) writeNow() (all bool, err error) {
	for s.more() {
		n, err := s.nowait.WriteNow(s.vec)
		if err != nil {
			return false, err
		}
		s.consume(n)
		if len(s.vec) > 0 {
			return false, nil
		}
	}
	return true, nil
}

// writePatience is how long writeSoon waits. A connection that takes data at all makes
// room within less, and to wait for that costs less than to have another goroutine do it.
const writePatience = 5 * time.Millisecond

// writeSoon writes what the connection takes at once or soon; false means that something
// is left.
func (s *socket) writeSoon() (all bool, err error) {
	for patient := false; ; patient = true {
		all, err = s.writeNow()
		if all || err != nil {
			return all, err
		}
		if !patient {
			if err := s.conn.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
				return false, err
			}
		}
		switch err := s.nowait.AwaitRoom(); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil
		case err != nil:
			return false, err
		}
	}
}

// consume takes n bytes from the front of vec.
func (s *socket) consume(n int) {
	for len(s.vec) > 0 && n >= len(s.vec[0]) {
		n -= len(s.vec[0])
		s.vec[0] = nil
		s.vec = s.vec[1:]
	}
	if n > 0 {
		s.vec[0] = s.vec[0][n:]
	}
}

// write writes all, and waits as long as the connection takes something now and then.
func (s *socket) write() error {
	for s.more() {
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
			return err
		}
		if s.nowait == nil {
			if _, err := s.vec.WriteTo(s.conn); err != nil { // which takes what it wrote off vec
				return err
			}
			continue
		}
		if err := s.nowait.AwaitRoom(); err != nil {
			return err
		}
		if _, err := s.writeNow(); err != nil {
			return err
		}
	}
	return nil
}

// end gives the memory of the batch back, and its place for another one.
func (s *socket) end() []outgoing {
	batch := s.batch
	for i := range batch {
		batch[i].buf.free()
		batch[i] = outgoing{}
	}
	clear(s.vec) // after an error
	s.batch, s.vec = nil, nil
	return batch[:0]
}
