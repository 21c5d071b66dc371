package session

import (
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// What is here is the Response Fence (RFC 7143 section 4.2.2.3.3): a response that
// says what has become of others, on any connection of the session, is not sent before
// the initiator has acknowledged those, and what comes after it is not sent before the
// initiator has acknowledged it. A session with one connection has nothing to do for
// that, and one that has not negotiated it (TaskReporting) does nothing.

// fence is a response that waits for others, and then has others wait.
type fence struct {
	c    *Connection
	send func()
	// before are the connections that have not acknowledged yet what they were sent,
	// and the StatSN up to which they have to.
	before map[*Connection]uint32
	// sent: it waits for its own acknowledgement, up to statSN.
	sent   bool
	statSN uint32
}

// fenced has send queue a response of the connection behind a Response Fence: now, or
// when its time has come.
func (c *Connection) fenced(send func()) {
	s := c.s
	if s.Params.TaskReporting == text.RFC3720 || len(s.Connections()) < 2 {
		send()
		return
	}
	s.fenceMu.Lock()
	defer s.fenceMu.Unlock()
	s.fences = append(s.fences, &fence{c: c, send: send})
	if len(s.fences) == 1 {
		s.fencing.Store(true)
		s.raise(s.fences[0])
		s.lowerThose()
	}
}

// acknowledged looks whether a fence may be lowered; the connection has acknowledged
// something, or gone.
func (s *Session) acknowledged() {
	if !s.fencing.Load() {
		return
	}
	s.fenceMu.Lock()
	defer s.fenceMu.Unlock()
	s.lowerThose()
}

// raise has the other connections hold back what they have to send. Session.fenceMu is
// held.
func (s *Session) raise(f *fence) {
	f.before = map[*Connection]uint32{}
	for _, other := range s.Connections() {
		if other != f.c {
			f.before[other] = other.outbox.hold()
		}
	}
}

// lowerThose goes on with the fences as far as what they wait for has come.
// Session.fenceMu is held.
func (s *Session) lowerThose() {
	for len(s.fences) > 0 {
		f := s.fences[0]
		if !f.sent && !s.passed(f) || f.sent && !f.c.outbox.has(f.statSN) {
			return
		}
		if !f.sent {
			f.send()
			f.sent, f.statSN = true, f.c.outbox.ask()
			continue
		}
		for other := range f.before {
			other.outbox.letGo()
		}
		if s.fences = slices.Delete(s.fences, 0, 1); len(s.fences) > 0 {
			s.raise(s.fences[0])
		}
	}
	s.fencing.Store(false)
}

// passed: all that was sent before the fence is acknowledged.
func (s *Session) passed(f *fence) bool {
	for other, statSN := range f.before {
		if !other.outbox.has(statSN) {
			return false
		}
	}
	return true
}

// ask asks the initiator for a sign of what it has got, and returns the StatSN that it
// has then.
func (o *outbox) ask() (statSN uint32) {
	o.post(pdu.NopIn{ITT: pdu.NoTag, TTT: pingTag}.Header(), nextStatSN)
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.expected()
}

// expected is the StatSN that the initiator is to have. Between fences nobody looks at what
// it acknowledges: by now acked may lie anywhere, as numbers go round. o.mu is held.
func (o *outbox) expected() (statSN uint32) {
	if o.acked != o.statSN {
		o.acked = o.statSN - 1
	}
	return o.statSN
}

// hold is ask, and has what comes after it wait for letGo, unless it is the last.
func (o *outbox) hold() (statSN uint32) {
	o.post(pdu.NopIn{ITT: pdu.NoTag, TTT: pingTag}.Header(), nextStatSN)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held = !o.drain
	// Those that waited for room may be the reader, which does so no more.
	o.change.Broadcast()
	return o.expected()
}

// setAside holds a PDU back. An initiator that has more of them come than there is memory
// for, and acknowledges nothing, has the connection closed. o.mu is held.
func (o *outbox) setAside(p outgoing) {
	o.behind = append(o.behind, p)
	if p.buf == nil {
		o.aside += pdu.BHSLen + len(p.data)
	}
	if o.aside > unackedBytes {
		_ = o.socket.conn.Close()
	}
}

// has: the initiator has everything below statSN, or the connection has ended.
func (o *outbox) has(statSN uint32) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed || !serialLess(o.acked, statSN)
}

// letGo ends hold.
func (o *outbox) letGo() {
	o.mu.Lock()
	o.held, o.aside = false, 0
	o.queue, o.behind = append(o.queue, o.behind...), nil
	o.mu.Unlock()
	o.change.Broadcast()
}
