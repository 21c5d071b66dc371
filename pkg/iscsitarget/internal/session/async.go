package session

import (
	"context"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// farewell is how long the last message of a session may take to reach the
// socket: a peer that takes nothing is not waited for.
const farewell = time.Second

// RequestLogout asks the initiator to log out within a time (RFC 7143 section
// 11.9.1, event 1). One that does not is told that its connection is dropped
// (event 2), with nothing kept for it. All connections are closed when RequestLogout
// returns; Done tells when the session has ended. Until the logout everything is
// served as before: an initiator may have data to save.
func (s *Session) RequestLogout(within time.Duration) {
	for _, c := range s.Connections() {
		// A moment less than a second rounds down: more is not promised than is
		// waited for.
		c.outbox.post(pdu.AsyncMessage{Event: pdu.AsyncRequestLogout, Parameter3: uint16(min(within/time.Second, 0xffff))}.Header(), takesStatSN)
	}
	if s.closes(within) {
		return
	}
	for _, c := range s.Connections() {
		c.announceDrop()
	}
	if !s.closes(farewell) {
		s.Close()
	}
}

// announceDrop closes the connection behind the message that says so.
func (c *Connection) announceDrop() {
	c.outbox.post(pdu.AsyncMessage{
		Event: pdu.AsyncDropConnection, Parameter1: c.CID, Parameter2: uint16(c.s.Params.DefaultTime2Wait),
	}.Header(), takesStatSN)
	c.outbox.finish()
}

// declaration is what this end has to say in a text exchange that it asked for.
type declaration struct {
	maxData int // MaxRecvDataSegmentLength
	said    chan struct{}
}

// RequestNegotiation asks the initiator for a text exchange on every connection,
// within a time (RFC 7143 section 11.9.1, event 4), and declares in it which
// MaxRecvDataSegmentLength this end has from then on, in bytes. A connection on which
// none comes is told that it is dropped. RequestNegotiation returns when all have been
// told one or the other.
func (s *Session) RequestNegotiation(maxRecvDataSegmentLength uint32, within time.Duration) {
	ctx, cancel := context.WithTimeout(s.ctx, within)
	defer cancel()
	asked := map[*Connection]*declaration{}
	for _, c := range s.Connections() {
		d := &declaration{maxData: int(maxRecvDataSegmentLength), said: make(chan struct{})}
		asked[c] = d
		c.declares.Store(d)
		c.outbox.post(pdu.AsyncMessage{Event: pdu.AsyncNegotiate, Parameter3: uint16(min(within/time.Second, 0xffff))}.Header(), takesStatSN)
	}
	for c, d := range asked {
		select {
		case <-d.said:
		case <-c.gone:
		case <-ctx.Done():
			if c.declares.CompareAndSwap(d, nil) {
				c.announceDrop()
			}
		}
	}
}

// closes waits for the end of the last connection, which its reader notices.
func (s *Session) closes(within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-s.ctx.Done():
		return true
	case <-t.C:
		return false
	}
}
