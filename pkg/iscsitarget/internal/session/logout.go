package session

import (
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// The answers to a Logout Request (RFC 7143 section 11.15.1).
const (
	logoutClosed     = 0
	logoutNoCID      = 1
	logoutNoRecovery = 2
)

// logout ends the session (RFC 7143 section 11.14): the answer goes out when
// every task has ended, and the connection closes behind it.
func (s *Session) logout(p *pdu.PDU) error {
	req := pdu.ParseLogoutRequest(&p.BHS)
	s.settle(p)
	if s.leaving {
		return s.reject(pdu.RejectWaitingForLogout, p)
	}
	response := byte(logoutClosed)
	switch {
	case s.Discovery && req.Reason != pdu.LogoutCloseSession:
		return s.reject(pdu.RejectProtocolError, p) // RFC 7143 section 4.3
	case req.Reason > pdu.LogoutForRecovery:
		return s.reject(pdu.RejectInvalidField, p)
	case req.Reason == pdu.LogoutForRecovery:
		response = logoutNoRecovery
	case req.Reason == pdu.LogoutCloseConnection && req.CID != s.CID:
		response = logoutNoCID
	}
	answer := pdu.LogoutResponse{Response: response, ITT: req.ITT}
	if response == logoutNoRecovery {
		answer.Time2Wait = uint16(s.Params.DefaultTime2Wait)
	}
	if response != logoutClosed {
		s.outbox.send(answer.Header(), nil, nil, takesStatSN)
		return nil
	}
	s.leaving = true
	s.abort(&abortion{then: func() {
		s.outbox.post(answer.Header(), takesStatSN)
		s.loggedOut.Store(true)
		s.outbox.finish()
	}}, func(*task) bool { return true })
	return nil
}
