package session

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// Why a session takes no other connection.
var (
	// ErrTooManyConnections: it has MaxConnections.
	ErrTooManyConnections = errors.New("the session has all the connections that it may")
	// ErrOver: it has ended.
	ErrOver = errors.New("the session has ended")
	// ErrBusy: the connection to be reinstated has not ended in time.
	ErrBusy = errors.New("the connection to be reinstated still has I/O under way")
)

// Connection is one connection of a session. The commands that came on it are
// allegiant to it: their data and their status go over it (RFC 7143 section 4.2.5.1).
type Connection struct {
	CID uint16
	// Params are the session's, with what each connection has of its own: digests
	// and MaxRecvDataSegmentLength.
	Params text.Params

	s      *Session
	conn   net.Conn
	reader *pdu.Reader
	outbox *outbox
	watch  watch
	quit   chan error    // the reader says why it ends
	gone   chan struct{} // closed when the session has no more to do with it, but what it keeps
	ended  chan struct{} // closed when nothing of it is left

	reading  *reading  // the reader's
	yielded  time.Time // reader: when it went through Go's scheduler last
	swept    time.Time // reader: when sweep looked last
	deadline time.Time // reader: when reading times out; zero for never
	pinged   bool      // reader: a NOP-In of ours is unanswered
	asked    time.Time // reader: since when
	attends  bool      // reader: it is to attend to reads, or to leave them
	glanced  int       // reader: see glance
	begun    []begun   // reader: commands taken in and not gone on with

	// devices read in the background what the reader attends to.
	devices []blockdev.BackgroundReader

	departing bool // Session.mu
	retained  retained

	declares atomic.Pointer[declaration] // what the next text exchange is to say

	text    *exchange // Session.order: the text exchange under way
	leaving bool      // Session.order: a Logout Request for it was accepted

	loggedOut atomic.Bool // the answer to that is on its way
	// maxSend is the initiator's MaxRecvDataSegmentLength, in bytes, which
	// it may change; textBusy: the answer that says so is not out yet.
	maxSend  atomic.Uint32
	textBusy atomic.Bool
}

// Connect adds a connection to the session, the first or another; Serve is to be
// called. The reader holds what the initiator sent after its last Login Request;
// statSN is the next one. A connection with the same CID is reinstated (RFC 7143
// section 6.3.4): the old one must go, for which there is patience.
func (s *Session) Connect(conn net.Conn, reader *pdu.Reader, cid uint16, params text.Params, statSN uint32, patience time.Duration) (*Connection, error) {
	c := &Connection{CID: cid, Params: params, s: s, conn: conn, reader: reader, gone: make(chan struct{}), ended: make(chan struct{}), quit: make(chan error, 1), retained: retained{abandoned: make(chan struct{})}}
	c.maxSend.Store(s.cfg.mostSent(params.MaxSendDataSegmentLength))
	digests := pdu.Digests{Header: params.HeaderDigest, Data: params.DataDigest}
	c.outbox = newOutbox(conn, s.window, statSN, s.cfg.WriteTimeout, digests)
	c.outbox.keeps, c.outbox.retains = s.Params.ErrorRecoveryLevel > 0, s.Params.ErrorRecoveryLevel == 2
	c.outbox.cork() // until Serve
	if err := s.seat(c, patience); err != nil {
		return nil, err
	}
	reader.SetMaxData(int(params.MaxRecvDataSegmentLength))
	reader.SetDigests(digests)
	return c, nil
}

// seat adds a connection, when the one that is in its way has gone: until then the
// session does not end, though it may have no other.
func (s *Session) seat(c *Connection, patience time.Duration) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	s.mu.Lock()
	s.seating++
	old, gone, err := s.admit(c)
	for old != nil && err == nil {
		s.mu.Unlock()
		_ = old.conn.Close()
		late := false
		select {
		case <-gone:
		case <-deadline.C:
			late = true
		}
		s.mu.Lock()
		if old, gone, err = s.admit(c); old != nil && late {
			err = ErrBusy
		}
	}
	s.seating--
	empty := s.empty()
	s.mu.Unlock()
	if empty {
		s.finish()
	}
	return err
}

// admit adds a connection, or returns the one that is in its way, and what is closed
// when it is not any more. Session.mu is held.
func (s *Session) admit(c *Connection) (old *Connection, gone <-chan struct{}, err error) {
	if s.over || s.closing {
		return nil, nil, ErrOver
	}
	same := func(other *Connection) bool { return other.CID == c.CID }
	if i := slices.IndexFunc(s.connections, same); i >= 0 {
		return s.connections[i], s.connections[i].gone, nil
	}
	if len(s.connections) >= int(max(1, s.Params.MaxConnections)) {
		return nil, nil, ErrTooManyConnections
	}
	for _, old := range s.lost {
		switch {
		case same(old) && old.retained.over: // its tasks have yet to end
			return old, old.ended, nil
		case same(old):
			old.retained.released = true // RFC 7143 section 6.3.4
		}
	}
	s.connections = append(s.connections, c)
	return nil, nil, nil
}

// empty says whether the session is over just now: it has no connection, and waits
// for none. Session.mu is held.
func (s *Session) empty() bool {
	if s.over || len(s.connections)+len(s.lost)+s.seating > 0 {
		return false
	}
	s.over = true
	return true
}

// connection returns the one with that CID, nil where there is none.
func (s *Session) connection(cid uint16) *Connection {
	for _, c := range s.Connections() {
		if c.CID == cid {
			return c
		}
	}
	return nil
}

// Remote and Local are the addresses of the connection's ends.
func (c *Connection) Remote() string { return c.conn.RemoteAddr().String() }

// Local is this end's address.
func (c *Connection) Local() string { return c.conn.LocalAddr().String() }

// Session is the session of the connection.
func (c *Connection) Session() *Session { return c.s }

// Send queues a PDU that is no answer to a command, such as the last Login
// Response, which goes when Serve is called.
func (c *Connection) Send(h pdu.BHS, data []byte) { c.outbox.send(h, data, nil, takesStatSN) }

// Serve runs the connection until it ends, and says why. It waits for everything
// that the connection started; with the last one of a session that is all that the
// session started, and Done is closed.
func (c *Connection) Serve() error {
	c.watch.timer = time.AfterFunc(time.Hour, func() { c.watch.look(c.takeOver) })
	c.watch.timer.Stop()
	c.s.readers.Go(func() { c.read(&reading{}) })
	sendErr := c.outbox.run()
	_ = c.conn.Close() // the reader must notice
	err := <-c.quit
	c.outbox.close()
	c.s.acknowledged() // nobody waits for it any more
	c.depart()
	c.watch.timer.Stop()
	switch {
	case c.loggedOut.Load():
		return ErrLogout
	case sendErr != nil && errors.Is(err, net.ErrClosed):
		return sendErr // the reader only noticed what the writer met
	}
	return err
}

// depart takes the connection out of its session, which ends with its last one. The
// tasks that are allegiant to it end without a status (RFC 7143 section 11.14.5), but
// at error recovery level 2 they may be recovered before.
func (c *Connection) depart() {
	s := c.s
	defer close(c.ended)
	s.order.Lock()
	s.mu.Lock()
	c.departing = true
	// From now on no other connection takes in commands of this one, or their data.
	s.forgetEarly(c)
	s.order.Unlock()
	if s.recovers(c) {
		s.lose(c)
		s.retain(c)
		s.mu.Lock()
	} else {
		defer close(c.gone)
	}
	last := s.last(c)
	s.over = s.over || last
	s.mu.Unlock()
	if last {
		c.outbox.discard()
		s.finish()
		return
	}
	ended := make(chan struct{})
	s.terminate([]*Connection{c}, func() { close(ended) })
	<-ended
	c.outbox.discard()
	s.mu.Lock()
	other := func(other *Connection) bool { return other == c }
	s.connections, s.lost = slices.DeleteFunc(s.connections, other), slices.DeleteFunc(s.lost, other)
	empty := s.empty()
	s.mu.Unlock()
	if empty {
		s.finish()
	}
}

// last says whether the session has no connection but one that departs. Session.mu is
// held.
func (s *Session) last(c *Connection) bool {
	goesOn := func(other *Connection) bool { return other != c && !other.departing }
	lost := func(other *Connection) bool { return other != c } // it may be about to go on with its tasks
	return !s.over && s.seating == 0 && !slices.ContainsFunc(s.connections, goesOn) && !slices.ContainsFunc(s.lost, lost)
}

// terminate ends the tasks of connections that have gone while others of the session
// go on, and runs then. The nexus is told at each logical unit before that, but not
// while one of them may still write.
func (s *Session) terminate(gone []*Connection, then func()) {
	var found marks
	a := &abortion{then: func() {
		for _, lun := range found.luns {
			s.nexus.CommandsCleared(lun)
		}
		then()
	}}
	a.left.Add(1)
	found = s.mark(a, func(t *task) bool { return slices.Contains(gone, t.conn.Load()) }, false)
	a.one()
}

// allegiant matches the tasks of the connection.
func (c *Connection) allegiant(t *task) bool { return t.conn.Load() == c }

// String names the connection in logs and errors.
func (c *Connection) String() string {
	return fmt.Sprintf("connection %d of %v", c.CID, c.s)
}
