package session

import (
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// The requests of a session have one numbered sequence over all its connections
// (RFC 7143 section 4.2.2.1): what is here puts them into it. Session.order is held
// by all of it but takeIn.

// held is a request that came before its turn, on its connection.
type held struct {
	c   *Connection
	pdu *pdu.PDU // nil: it is not to be done, though its number counts
	// dataOut is unsolicited data that came behind a command.
	dataOut []*pdu.PDU
	// starved: there was no room for its data, and none of it is kept; final says
	// that all of it has come.
	starved, final bool
}

// begun is a command that was taken in, in its turn.
type begun struct {
	t *task
	// waits: it waits for its turn in its task set, too.
	waits bool
}

// takeIn takes a request in if its turn has come, with those that have waited for
// it. The reader of c calls it.
func (s *Session) takeIn(c *Connection, p *pdu.PDU) {
	s.order.Lock()
	s.place(c, p)
	c.goOn()
}

// goOn gives Session.order up and goes on with the commands that were begun. The
// reader of c calls it.
func (c *Connection) goOn() {
	c.begun, c.s.begun = c.s.begun, c.begun[:0]
	c.s.order.Unlock()
	for i, b := range c.begun {
		c.begun[i] = begun{}
		b.goOn(c)
	}
}

// place does a request, holds it for its turn, or ignores it.
func (s *Session) place(c *Connection, p *pdu.PDU) {
	if p.BHS.Immediate() {
		handlers[p.BHS.Opcode()](c, p)
		s.advance() // it may have been an ABORT TASK of what others wait for
		return
	}
	switch s.window.classify(p.BHS.CmdSN()) {
	case inOrder:
		s.window.accept()
		handlers[p.BHS.Opcode()](c, p)
		s.advance()
	case early:
		s.hold(c, p)
	case outside: // silently ignored
	}
}

// advance does the requests that have waited for what was done, in their turn, and
// the task management functions that have.
func (s *Session) advance() {
	for len(s.early) > 0 {
		exp, _ := s.window.advertised()
		h := s.early[exp]
		if h == nil {
			break
		}
		delete(s.early, exp)
		s.window.accept()
		s.do(h)
	}
	s.caughtUp()
}

// do does a request that was held.
func (s *Session) do(h *held) {
	switch {
	case h.pdu == nil:
		s.window.release()
	case h.pdu.BHS.Opcode() == pdu.OpSCSICommand:
		s.earlyBytes -= h.bytes()
		h.c.command(h.pdu, h)
		for _, p := range h.dataOut {
			h.c.dataOutInTurn(p)
		}
	case h.starved:
		h.c.rejectNumbered(pdu.RejectLongOperation, h.pdu)
	default:
		s.earlyBytes -= h.bytes()
		handlers[h.pdu.BHS.Opcode()](h.c, h.pdu)
	}
}

// earlyLimit bounds the data of requests that came before their turn, in bytes, for
// a session. Over several connections a command may well overtake another.
const earlyLimit = 1 << 20

// hold keeps a copy of a request that came before its turn. The window bounds their
// number; a command that there is no room for is answered with TASK SET FULL in its
// turn.
func (s *Session) hold(c *Connection, p *pdu.PDU) {
	if s.early[p.BHS.CmdSN()] != nil {
		return // a duplicate: silently ignored
	}
	h := &held{c: c, pdu: &pdu.PDU{BHS: p.BHS, AHS: slices.Clone(p.AHS)}}
	if h.starved = !s.keep(len(p.Data)); !h.starved {
		h.pdu.Data = slices.Clone(p.Data)
	}
	s.early[p.BHS.CmdSN()] = h
}

// keep makes room for the data of what came early.
func (s *Session) keep(n int) bool {
	if s.earlyBytes+n > earlyLimit {
		return false
	}
	s.earlyBytes += n
	return true
}

// bytes is the data that is kept of it.
func (h *held) bytes() int {
	n := len(h.pdu.Data)
	for _, p := range h.dataOut {
		n += pdu.BHSLen + len(p.Data)
	}
	return n
}

// forgo counts a number as received whose command was lost, or waits for its turn:
// its initiator has aborted it.
func (s *Session) forgo(cmdSN uint32) {
	if h := s.early[cmdSN]; h != nil && h.pdu != nil {
		s.earlyBytes -= h.bytes()
	}
	s.early[cmdSN] = &held{}
}

// forgetEarly drops what a connection that has gone has brought early. None of it was
// acknowledged: its initiator fills the gap that it leaves, with the same commands over
// another connection or with others (RFC 7143 section 7.2.1).
func (s *Session) forgetEarly(c *Connection) {
	for cmdSN, h := range s.early {
		if h.c == c {
			s.earlyBytes -= h.bytes()
			delete(s.early, cmdSN)
		}
	}
}

// earlyDataOut keeps a Data-Out whose command has not had its turn; false means
// that there is no such command.
func (s *Session) earlyDataOut(c *Connection, p *pdu.PDU) bool {
	for _, h := range s.early {
		if h.c != c || h.pdu == nil || h.pdu.BHS.Opcode() != pdu.OpSCSICommand || h.pdu.BHS.ITT() != p.BHS.ITT() {
			continue
		}
		if !h.starved && !s.keep(pdu.BHSLen+len(p.Data)) {
			s.earlyBytes -= h.bytes()
			h.starved, h.pdu.Data, h.dataOut = true, nil, nil
		}
		if h.starved {
			h.final = h.final || p.BHS.Final()
			return true
		}
		h.dataOut = append(h.dataOut, &pdu.PDU{BHS: p.BHS, Damaged: p.Damaged, Data: slices.Clone(p.Data)})
		return true
	}
	return false
}

// rejectNumbered rejects a request whose turn was used up by it.
func (c *Connection) rejectNumbered(reason byte, p *pdu.PDU) {
	c.settle(p)
	c.reject(reason, p)
}

// settle gives back the place in the window of a request that has ended.
func (c *Connection) settle(p *pdu.PDU) {
	if !p.BHS.Immediate() {
		c.s.window.release()
	}
}
