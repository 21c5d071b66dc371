package iscsitarget

import (
	"net"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/session"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/wire"
)

// Event is a step of a connection's or session's life, one of the structs below. What
// happens to SCSI commands is none: [Server.Stats] counts them.
type Event any

type (
	// ConnectionRequested tells that a peer has connected.
	ConnectionRequested struct{ Remote net.Addr }
	// ConnectionClosed tells that its connection is over, whatever it came to.
	ConnectionClosed struct{ Remote net.Addr }

	// LoginRequested tells of a Login Request, in the security or the operational
	// stage.
	LoginRequested struct {
		Security        bool
		CmdSN, ExpCmdSN uint32
	}
	// TextRequested tells of a Text Request in full-feature phase.
	TextRequested struct{ CmdSN, ExpCmdSN uint32 }
	// Transferred is a PDU of a login or a text exchange, which hold no user data:
	// its basic header segment, additional ones and data. They are valid during the
	// call alone.
	Transferred struct{ BHS, AHS, Data []byte }
	// KeyDropped tells of a key that there was no room to answer.
	KeyDropped text.Pair

	// UserUnknown tells of a CHAP name that nobody has here.
	UserUnknown struct{ User string }
	// UserRefused tells that an initiator did not prove that it is that user.
	UserRefused struct{ User string }
	// UserAccepted tells that it did.
	UserAccepted struct{ User string }

	// TargetSought tells that a login asks for a target, whether there is one or not.
	TargetSought struct{ Name string }
	// SessionSought tells that a login which succeeded asks for a session, one of its
	// own where TSIH is 0.
	SessionSought struct {
		Initiator string
		SID       SID
	}
	// SessionCreated and SessionEnded are the first and last of a session.
	SessionCreated struct{ SID SID }
	// SessionEnded tells that nothing of it is left.
	SessionEnded struct {
		SID    SID
		Target string
	}
	// ConnectionTaken tells that a connection is in full-feature phase.
	ConnectionTaken struct {
		CID               uint16
		StatSN, ExpStatSN uint32
		SID               SID
		// FD is the socket's file descriptor, -1 where there is none.
		FD int
	}
	// ConnectionLeft tells that it is so no more.
	ConnectionLeft struct {
		CID    uint16
		SID    SID
		Target string
	}
)

// SID is a session identifier (RFC 7143 section 4.4): the initiator's ISID and the
// target's TSIH.
type SID struct {
	ISID [6]byte
	TSIH uint16
}

// trace tells whoever follows.
func (s *Server) trace(e Event) {
	if s.opts.Trace != nil {
		s.opts.Trace(e)
	}
}

// traceLogin tells of a Login Request.
func (s *Server) traceLogin(p *pdu.PDU, req pdu.LoginRequest, expected uint32) {
	if s.opts.Trace == nil {
		return
	}
	s.opts.Trace(Transferred{p.BHS[:], p.AHS, p.Data})
	s.opts.Trace(LoginRequested{req.CSG == pdu.StageSecurity, req.CmdSN, expected})
}

// traceText tells of a PDU of a text exchange; nil where nobody follows.
func (s *Server) traceText() func(session.Traced) {
	if s.opts.Trace == nil {
		return nil
	}
	return func(t session.Traced) {
		s.opts.Trace(Transferred{t.BHS[:], t.AHS, t.Data})
		if t.Request {
			s.opts.Trace(TextRequested{t.BHS.CmdSN(), t.ExpCmdSN})
		}
	}
}

// descriptor is a connection's file descriptor, -1 where there is none.
func descriptor(c net.Conn) int {
	if w, ok := c.(*wire.Conn); ok {
		return w.Descriptor()
	}
	return -1
}
