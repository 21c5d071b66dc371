package session

import (
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// The answers to a Logout Request (RFC 7143 section 11.15.1).
const (
	logoutClosed     = 0
	logoutNoCID      = 1
	logoutNoRecovery = 2
)

// logout ends the session or a connection of it (RFC 7143 section 11.14): the answer
// goes out when the tasks concerned have ended, and the connections close behind it.
func (c *Connection) logout(p *pdu.PDU) {
	req := pdu.ParseLogoutRequest(&p.BHS)
	c.settle(p)
	answer := pdu.LogoutResponse{ITT: req.ITT}
	named, lost := c.s.connection(req.CID), c.s.lostWith(req.CID)
	switch {
	case c.leaving:
		c.reject(pdu.RejectWaitingForLogout, p)
	case c.s.Discovery && req.Reason != pdu.LogoutCloseSession:
		c.reject(pdu.RejectProtocolError, p) // RFC 7143 section 4.3
	case req.Reason > pdu.LogoutForRecovery:
		c.reject(pdu.RejectInvalidField, p)
	case req.Reason == pdu.LogoutCloseSession:
		c.s.close()
		c.leave(c.s.Connections(), answer, func(then func()) { c.s.abort(&abortion{then: then}, anyTask) })
	case req.Reason == pdu.LogoutForRecovery:
		c.logoutForRecovery(req)
	case named == nil && len(lost) > 0:
		c.s.terminate(lost, func() { c.outbox.post(answer.Header(), takesStatSN) })
		c.s.abandon(lost)
	case named == nil:
		answer.Response = logoutNoCID
		c.outbox.post(answer.Header(), takesStatSN)
	default:
		leaving := []*Connection{named}
		c.leave(leaving, answer, func(then func()) { c.s.terminate(leaving, then) })
	}
}

// leave closes connections when end has ended the tasks concerned; c is the one that
// the answer goes over, whether it is among them or not.
func (c *Connection) leave(leaving []*Connection, answer pdu.LogoutResponse, end func(then func())) {
	for _, other := range leaving {
		other.leaving = true
	}
	end(func() {
		c.outbox.post(answer.Header(), takesStatSN)
		for _, other := range leaving {
			other.loggedOut.Store(true)
			other.outbox.finish()
		}
	})
}

// lostWith returns the lost connections with a CID.
func (s *Session) lostWith(cid uint16) []*Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.lost), func(c *Connection) bool { return c.CID != cid })
}

// abandon gives up what lost connections have left behind.
func (s *Session) abandon(lost []*Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range lost {
		c.giveUp()
	}
}
