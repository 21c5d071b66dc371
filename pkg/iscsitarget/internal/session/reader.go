package session

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// handlers has one entry a request opcode. An error ends the session.
var handlers = [64]func(*Session, *pdu.PDU) error{
	pdu.OpNopOut:         (*Session).nopOut,
	pdu.OpSCSICommand:    (*Session).scsiCommand,
	pdu.OpTaskManagement: (*Session).taskManagement,
	pdu.OpTextRequest:    (*Session).textRequest,
	pdu.OpDataOut:        (*Session).dataOut,
	pdu.OpLogoutRequest:  (*Session).logout,
}

// inDiscovery are the requests of a discovery session (RFC 7143 section 4.3).
var inDiscovery = [64]bool{pdu.OpNopOut: true, pdu.OpTextRequest: true, pdu.OpLogoutRequest: true}

// read takes PDUs off the connection until it ends.
func (s *Session) read() error {
	for {
		p, err := s.next()
		if err != nil {
			return err
		}
		if err := s.receive(&p); err != nil {
			return err
		}
	}
}

// next waits for a PDU; when the initiator is silent for too long it is asked
// for a sign of life, and given up if it gives none.
func (s *Session) next() (pdu.PDU, error) {
	for {
		now := time.Now()
		if err := s.sweep(now); err != nil {
			return pdu.PDU{}, err
		}
		if s.cfg.NopInterval > 0 && !s.reader.Buffered() {
			wait := s.cfg.NopInterval
			if s.pinged {
				wait = s.cfg.NopTimeout
			}
			if err := s.conn.SetReadDeadline(now.Add(wait)); err != nil {
				return pdu.PDU{}, err
			}
		}
		p, err := s.reader.Next()
		switch {
		case err == nil:
			s.pinged = false
			return p, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return p, err
		case s.pinged:
			return p, fmt.Errorf("%w: no answer to NOP-In for %v", ErrPeerGone, s.cfg.NopTimeout)
		}
		s.ping()
	}
}

// sweep gives up an initiator that keeps a task waiting for data: the task's
// memory is missing elsewhere. Nothing can be said to it below error recovery
// level 1 but that the session ends.
func (s *Session) sweep(now time.Time) error {
	if s.cfg.DataTimeout <= 0 || now.Sub(s.swept) < s.cfg.DataTimeout/4 {
		return nil
	}
	s.swept = now
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if t.out.overdue(now.Add(-s.cfg.DataTimeout)) {
			return fmt.Errorf("%w: no Data-Out for task %#08x in %v", ErrProtocol, t.itt, s.cfg.DataTimeout)
		}
	}
	return nil
}

// receive handles one PDU. Requests that are numbered wait for their turn.
func (s *Session) receive(p *pdu.PDU) error {
	op := p.BHS.Opcode()
	handle := handlers[op]
	switch {
	case p.Damaged:
		return s.damaged(p)
	case handle == nil || s.Discovery && !inDiscovery[op]:
		return s.refuse(p)
	case op == pdu.OpDataOut:
		return handle(s, p)
	case p.BHS.Immediate():
		if err := handle(s, p); err != nil {
			return err
		}
		return s.inTurn(s.waited()) // it may have been an ABORT TASK of what they wait for
	case op == pdu.OpNopOut && p.BHS.ITT() == pdu.NoTag:
		return s.reject(pdu.RejectProtocolError, p)
	}
	switch s.window.classify(p.BHS.CmdSN()) {
	case outside:
		return nil // RFC 7143 section 4.2.2.1: silently ignored
	case early:
		return s.hold(p)
	}
	return s.inTurn(p)
}

// inTurn handles the request that is next, if any, and those that waited for it.
func (s *Session) inTurn(p *pdu.PDU) error {
	for p != nil {
		s.window.accept()
		if p == forgone {
			s.window.release()
		} else if err := handlers[p.BHS.Opcode()](s, p); err != nil {
			return err
		}
		p = s.waited()
	}
	s.caughtUp()
	return nil
}

// waited returns the request that is next, if it came before its turn.
func (s *Session) waited() *pdu.PDU {
	if len(s.early) == 0 {
		return nil
	}
	exp, _ := s.window.advertised()
	p := s.early[exp]
	if p != nil {
		delete(s.early, exp)
		s.earlyBytes -= len(p.Data)
	}
	return p
}

// forgone stands in early for a command that will not come.
var forgone = &pdu.PDU{}

// forgo counts a number as received whose command was lost, or waits for its
// turn: its initiator has aborted it.
func (s *Session) forgo(cmdSN uint32) {
	if held := s.early[cmdSN]; held != nil {
		s.earlyBytes -= len(held.Data)
	}
	s.early[cmdSN] = forgone
}

// earlyLimit bounds the data of requests that came before their turn, in bytes.
const earlyLimit = 1 << 20

// hold keeps a copy of a request that came before its turn. The window bounds
// their number; over one ordered connection there are none but by an
// initiator's mistake.
func (s *Session) hold(p *pdu.PDU) error {
	if s.early[p.BHS.CmdSN()] != nil {
		return nil // a duplicate: silently ignored
	}
	s.earlyBytes += len(p.Data)
	if s.earlyBytes > earlyLimit {
		return fmt.Errorf("%w: more than %d bytes came before their turn", ErrProtocol, earlyLimit)
	}
	s.early[p.BHS.CmdSN()] = &pdu.PDU{BHS: p.BHS, AHS: slices.Clone(p.AHS), Data: slices.Clone(p.Data)}
	return nil
}

// damaged rejects and discards a PDU whose data digest is wrong (RFC 7143 section
// 7.8). It uses up no CmdSN, whether it is a command with immediate data or
// another request: the initiator may send it again, whole. A Data-Out cannot come
// again below error recovery level 1, and takes its task with it.
func (s *Session) damaged(p *pdu.PDU) error {
	if err := s.reject(pdu.RejectDataDigest, p); err != nil {
		return err
	}
	if p.BHS.Opcode() == pdu.OpDataOut && !s.Discovery {
		return s.dataOut(p)
	}
	return nil
}

// refuse answers a PDU that has no place in this session.
func (s *Session) refuse(p *pdu.PDU) error {
	reason := byte(pdu.RejectNotSupported)
	switch {
	case p.BHS.Opcode() == pdu.OpLoginRequest || s.Discovery:
		reason = pdu.RejectProtocolError
	case p.BHS.Opcode() == pdu.OpSNACK:
		reason = pdu.RejectSNACK // there is none below error recovery level 1
	}
	if err := s.reject(reason, p); err != nil {
		return err
	}
	if reason == pdu.RejectProtocolError {
		return fmt.Errorf("%w: opcode %#02x in full-feature phase", ErrProtocol, byte(p.BHS.Opcode()))
	}
	return nil
}

// reject sends a Reject with the header that it is about.
func (s *Session) reject(reason byte, p *pdu.PDU) error {
	s.log.Debug("PDU rejected", "reason", reason, "opcode", byte(p.BHS.Opcode()))
	s.outbox.send(pdu.Reject{Reason: reason}.Header(), slices.Clone(p.BHS[:]), nil, takesStatSN)
	return nil
}

// rejectNumbered rejects a request whose turn was used up by it.
func (s *Session) rejectNumbered(reason byte, p *pdu.PDU) error {
	s.settle(p)
	return s.reject(reason, p)
}

// settle gives back the place in the window of a request that has ended.
func (s *Session) settle(p *pdu.PDU) {
	if !p.BHS.Immediate() {
		s.window.release()
	}
}
