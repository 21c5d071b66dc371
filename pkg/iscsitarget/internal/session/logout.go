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
	named := c.s.connection(req.CID)
	switch {
	case c.leaving:
		c.reject(pdu.RejectWaitingForLogout, p)
	case c.s.Discovery && req.Reason != pdu.LogoutCloseSession:
		c.reject(pdu.RejectProtocolError, p) // RFC 7143 section 4.3
	case req.Reason > pdu.LogoutForRecovery:
		c.reject(pdu.RejectInvalidField, p)
	case req.Reason == pdu.LogoutCloseSession:
		c.s.close()
		c.leave(c.s.Connections(), answer)
	case req.Reason == pdu.LogoutForRecovery:
		c.logoutForRecovery(req)
	case named == nil && c.s.abandon(req.CID):
		c.outbox.post(answer.Header(), takesStatSN)
	case named == nil:
		answer.Response = logoutNoCID
		c.outbox.post(answer.Header(), takesStatSN)
	default:
		c.leave([]*Connection{named}, answer)
	}
}

// leave closes connections when their tasks have ended; c is the one that the answer
// goes over, whether it is among them or not.
func (c *Connection) leave(leaving []*Connection, answer pdu.LogoutResponse) {
	for _, other := range leaving {
		other.leaving = true
	}
	c.s.abort(&abortion{then: func() {
		c.outbox.post(answer.Header(), takesStatSN)
		for _, other := range leaving {
			other.loggedOut.Store(true)
			other.outbox.finish()
		}
	}}, func(t *task) bool { return slices.Contains(leaving, t.conn.Load()) })
}

// abandon gives up what a lost connection has left behind; false where there is none
// with that CID.
func (s *Session) abandon(cid uint16) (found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.lost {
		if c.CID == cid && !c.retained.over {
			c.giveUp()
			found = true
		}
	}
	return found
}
