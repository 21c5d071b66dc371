package session

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// handlers has one entry a request opcode, but for Data-Out, which is not numbered.
// Session.order is held; the request may be an earlier one of another connection
// than that whose reader calls.
var handlers = [64]func(*Connection, *pdu.PDU){
	pdu.OpNopOut:         (*Connection).nopOut,
	pdu.OpSCSICommand:    (*Connection).scsiCommand,
	pdu.OpTaskManagement: (*Connection).taskManagement,
	pdu.OpTextRequest:    (*Connection).textRequest,
	pdu.OpLogoutRequest:  (*Connection).logout,
}

// inDiscovery are the requests of a discovery session (RFC 7143 section 4.3).
var inDiscovery = [64]bool{pdu.OpNopOut: true, pdu.OpTextRequest: true, pdu.OpLogoutRequest: true}

// read takes PDUs off the connection until it ends, or r is over.
func (c *Connection) read(r *reading) {
	c.reading = r
	for !r.over {
		var err error
		if r.pdu, err = c.next(); err == nil {
			err = c.receive(&r.pdu)
		}
		if err != nil {
			c.stopReading(err)
			return
		}
	}
}

// stopReading ends the connection.
func (c *Connection) stopReading(err error) {
	c.leaveReads()
	if errors.Is(err, ErrProtocol) {
		c.outbox.finish() // let the Reject out that says what was wrong
	} else {
		_ = c.conn.Close()
		c.outbox.close()
	}
	c.quit <- err
}

// takeOver has another goroutine read on. The one before is in a call, with a PDU of its
// own.
func (c *Connection) takeOver() {
	c.reader.Detach()
	c.s.readers.Go(func() { c.read(&reading{}) })
}

// next waits for a PDU; when the initiator is silent for too long it is asked
// for a sign of life, and given up if it gives none.
func (c *Connection) next() (pdu.PDU, error) {
	if !c.reader.Buffered() {
		// All that came before is done: its answers go before anything is waited for.
		c.outbox.uncork()
		c.attend()
		c.gauge()
		if err := c.await(); err != nil {
			return pdu.PDU{}, err
		}
		c.outbox.cork()
	} else {
		c.glance()
	}
	return c.reader.Next()
}

// deepAnswers is how many answers an initiator with many commands under way mostly has yet
// to acknowledge.
const deepAnswers = 4

// gauge looks at how many commands the initiator has under way.
func (c *Connection) gauge() {
	if nowait := c.outbox.socket.nowait; nowait != nil {
		nowait.Gauge(c.outbox.outstanding(c.reading.pdu.BHS.ExpStatSN()) >= deepAnswers)
	}
}

// yieldInterval is after how long the reader goes through Go's scheduler once. Go's monitor
// would do that to a goroutine that has run for 10 ms, and while it has such work it looks
// every few microseconds for more.
const yieldInterval = 5 * time.Millisecond

// await returns when there is a PDU.
func (c *Connection) await() error {
	cfg := &c.s.cfg
	now := time.Now()
	if now.Sub(c.yielded) >= yieldInterval {
		c.yielded = now
		runtime.Gosched()
	}
	for heard := now; ; now = time.Now() {
		if err := c.sweep(now); err != nil {
			return err
		}
		nop, patience := cfg.NopInterval, heard
		if c.pinged {
			nop, patience = cfg.NopTimeout, c.asked
		}
		if err := c.timeOut(now, earliest(patience, nop, c.swept, cfg.DataTimeout/4)); err != nil {
			return err
		}
		err := c.reader.Fill()
		switch {
		case err == nil && c.reader.Buffered():
			c.pinged = false
			return nil
		case err == nil:
			c.attend() // it was a part of one
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case nop <= 0 || time.Since(patience) < nop: // it was time to sweep
			c.reader.Shrink()
		case c.pinged:
			return fmt.Errorf("%w: no answer to NOP-In for %v", ErrPeerGone, nop)
		default:
			c.ping()
			c.asked = time.Now()
		}
	}
}

// timeOut has reading time out by then at the latest: a deadline that is to come before
// stays, since it costs less to meet it than to set another one each time.
func (c *Connection) timeOut(now, by time.Time) error {
	if by.IsZero() && c.deadline.IsZero() || c.deadline.After(now) && !by.Before(c.deadline) {
		return nil
	}
	c.deadline = by
	return c.conn.SetReadDeadline(by)
}

// earliest is when the first of two times is over, each counted from another moment;
// one that is not positive never is.
func earliest(a time.Time, forA time.Duration, b time.Time, forB time.Duration) time.Time {
	switch a, b = a.Add(forA), b.Add(forB); {
	case forA <= 0 && forB <= 0:
		return time.Time{}
	case forA <= 0 || forB > 0 && b.Before(a):
		return b
	}
	return a
}

// sweep gives up an initiator that keeps a task waiting for data, or acknowledges
// nothing of what is kept for it: the memory is missing elsewhere.
func (c *Connection) sweep(now time.Time) error {
	if c.s.cfg.DataTimeout <= 0 || now.Sub(c.swept) < c.s.cfg.DataTimeout/4 {
		return nil
	}
	c.swept = now
	since := now.Add(-c.s.cfg.DataTimeout)
	if c.outbox.ignored(since) {
		return fmt.Errorf("%w: nothing acknowledged in %v", ErrProtocol, c.s.cfg.DataTimeout)
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for _, t := range c.s.tasks {
		if c.allegiant(t) && t.out.overdue(since) {
			return fmt.Errorf("%w: no Data-Out for task %#08x in %v", ErrProtocol, t.itt, c.s.cfg.DataTimeout)
		}
	}
	return nil
}

// receive handles one PDU. Requests that are numbered wait for their turn.
func (c *Connection) receive(p *pdu.PDU) error {
	op := p.BHS.Opcode()
	if c.outbox.keeps || c.s.fencing.Load() {
		c.outbox.acknowledge(p.BHS.ExpStatSN())
		c.s.acknowledged()
	}
	switch {
	case p.Damaged:
		return c.damaged(p)
	case op == pdu.OpDataOut && !c.s.Discovery:
		c.dataOut(p)
		return nil
	case op == pdu.OpSNACK && c.outbox.keeps:
		c.room()
		c.snack(pdu.ParseSNACK(&p.BHS), p)
		return nil
	case handlers[op] == nil || c.s.Discovery && !inDiscovery[op]:
		return c.refuse(p)
	}
	// Answers are posted: this bounds them.
	c.room()
	if op == pdu.OpNopOut && !p.BHS.Immediate() && p.BHS.ITT() == pdu.NoTag {
		c.reject(pdu.RejectProtocolError, p)
		return nil
	}
	c.s.takeIn(c, p)
	return nil
}

// room waits until there is room for answers. The reads that the reader attends to do not
// wait for this connection: they are left where it takes little, and before it is waited for.
func (c *Connection) room() {
	if c.attends && c.outbox.backedUp() {
		c.leaveReads()
	}
	for !c.outbox.hasRoom() {
		c.leaveReads()
		c.outbox.room()
	}
}

// damaged rejects and discards a PDU whose data digest is wrong (RFC 7143 section
// 7.8). It uses up no CmdSN, whether it is a command with immediate data or
// another request: the initiator may send it again, whole. A Data-Out cannot come
// again below error recovery level 1, and takes its task with it.
func (c *Connection) damaged(p *pdu.PDU) error {
	c.room()
	c.reject(pdu.RejectDataDigest, p)
	if p.BHS.Opcode() == pdu.OpDataOut && !c.s.Discovery {
		c.dataOut(p)
	}
	return nil
}

// refuse answers a PDU that has no place in this session.
func (c *Connection) refuse(p *pdu.PDU) error {
	reason := byte(pdu.RejectNotSupported)
	switch {
	case p.BHS.Opcode() == pdu.OpLoginRequest || c.s.Discovery:
		reason = pdu.RejectProtocolError
	case p.BHS.Opcode() == pdu.OpSNACK:
		reason = pdu.RejectSNACK // there is none below error recovery level 1
	}
	c.room()
	c.reject(reason, p)
	if reason == pdu.RejectProtocolError {
		return fmt.Errorf("%w: opcode %#02x in full-feature phase", ErrProtocol, byte(p.BHS.Opcode()))
	}
	return nil
}

// reject posts a Reject with the header that it is about.
func (c *Connection) reject(reason byte, p *pdu.PDU) {
	c.s.log.Debug("PDU rejected", "reason", reason, "opcode", byte(p.BHS.Opcode()))
	c.outbox.postData(pdu.Reject{Reason: reason}.Header(), slices.Clone(p.BHS[:]), takesStatSN)
}
