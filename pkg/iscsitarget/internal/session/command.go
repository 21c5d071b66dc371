package session

import (
	"context"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// scsiCommand takes a SCSI command in (RFC 7143 section 11.3).
func (c *Connection) scsiCommand(p *pdu.PDU) { c.command(p, nil) }

// command is scsiCommand; early is what the command was while it was held for its
// turn, nil where it was not.
func (c *Connection) command(p *pdu.PDU, early *held) {
	s := c.s
	req := pdu.ParseSCSICommand(&p.BHS)
	t := newTask()
	t.s, t.itt, t.lun, t.immediate = s, req.ITT, req.LUN, req.Immediate
	t.conn.Store(c)
	switch {
	case req.Read && req.Write:
		c.rejectNumbered(pdu.RejectNotSupported, p) // bidirectional
		return
	case req.Read:
		t.expectIn = req.ExpectedLength
	case req.Write:
		t.expectOut = req.ExpectedLength
	}
	if reason := c.unfit(req); reason != 0 {
		c.rejectNumbered(reason, p)
		return
	}
	// Who aborts tasks after a reservation has changed must find every one
	// that the reservation before has let through.
	s.add(t)
	t.decode(req, p)
	s.stats.count(t.cmd.Kind)
	waits := t.join(scsi.Attribute(req.Attr))
	if early != nil && early.starved {
		req.Final = req.Final || early.final
	}
	t.expectData(req, p.Data, waits, early)
	s.begun = append(s.begun, begun{t, waits})
}

// unfit says why a command is rejected, 0 where it is not.
func (c *Connection) unfit(req pdu.SCSICommand) (reason byte) {
	switch {
	case req.Immediate && c.s.immediateFull():
		return pdu.RejectImmediate
	case req.ITT == pdu.NoTag:
		return pdu.RejectInvalidField
	case c.leaving:
		return pdu.RejectWaitingForLogout
	case c.s.tagInUse(req.ITT):
		return pdu.RejectTaskInProgress
	case !scsi.Attribute(req.Attr).Valid():
		return pdu.RejectInvalidField
	}
	return 0
}

// goOn goes on with a command that was taken in: on the reader of its connection,
// which c is, or on a worker.
func (b begun) goOn(c *Connection) {
	if b.t.conn.Load() == c {
		b.t.goOn(c, b.t.piece)
	} else {
		b.t.s.workers.submit(op{t: b.t, call: goOnOp})
	}
	if b.waits {
		b.t.arrived()
	}
}

func goOnOp(o op) {
	if o.t.finish(scsi.StatusGood) {
		o.t.proceed(false)
		return
	}
	o.t.solicitNext()
}

func (s *Session) immediateFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.immediate >= immediateDepth
}

// decode asks the SCSI layer what the command is. A CDB longer than 16 bytes
// comes in an additional header segment.
func (t *task) decode(req pdu.SCSICommand, p *pdu.PDU) {
	cdb := req.CDB[:]
	if len(p.AHS) > 0 {
		cdb = append(append(make([]byte, 0, 16+len(p.AHS)), cdb...), extendedCDB(p.AHS)...)
	}
	t.cmd = t.s.nexus.Decode(req.LUN, scsi.Attribute(req.Attr), cdb)
	if t.cmd.Kind == scsi.Exec {
		t.makeCancelable()
	}
}

// makeCancelable gives the task a context of its own, which ends with an abort:
// there may have been one already.
func (t *task) makeCancelable() {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.ctx, t.cancel = context.WithCancel(t.s.ctx)
	if t.aborted.Load() {
		t.cancel()
	}
}

// extendedCDB returns the rest of the CDB from an AHS of type 1 (RFC 7143
// section 11.2.2.3), nil where there is none or its lengths do not fit.
func extendedCDB(ahs []byte) []byte {
	for len(ahs) >= 4 {
		n := int(ahs[0])<<8 | int(ahs[1])
		if n < 1 || 3+n > len(ahs) {
			return nil
		}
		if ahs[2]&0x3f == 1 {
			return ahs[4 : 3+n]
		}
		ahs = ahs[min((3+n+3)&^3, len(ahs)):]
	}
	return nil
}

// proceed goes on with a command whose Data-Out, if any, is in. The caller
// holds the task's last call; onReader says that it must not wait.
func (t *task) proceed(onReader bool) {
	t.s.mu.Lock()
	st := t.status
	t.s.mu.Unlock()
	switch {
	case bad(st):
		t.respond(st, pdu.ResidualOf(0, t.expected()))
	case t.cmd.Kind == scsi.Done:
		t.deliver(t.cmd.Data, t.cmd.Status)
	case t.cmd.Kind == scsi.Read && t.toSend() == 0:
		t.conclude(scsi.StatusGood)
	case t.cmd.Kind == scsi.Read && onReader && !t.recoverable():
		t.readInPlace()
	case t.cmd.ToCache():
		t.conclude(t.cmd.Finish())
		t.recycle()
	case onReader:
		t.s.workers.submit(op{t: t, call: proceedOp})
	case t.cmd.Kind == scsi.Read && t.recoverable():
		t.readKept()
	case t.cmd.Kind == scsi.Read:
		t.readOut()
	case t.cmd.Kind == scsi.Write:
		t.conclude(t.cmd.Finish())
	default:
		t.execute()
	}
}

func proceedOp(o op) { o.t.proceed(false) }

// expected is what the initiator expects to be moved, in bytes.
func (t *task) expected() uint32 { return t.expectIn + t.expectOut }

// conclude ends a command that moved all that its CDB asked for, or failed.
func (t *task) conclude(st scsi.Status) {
	moved := t.cmd.Length
	if bad(st) {
		moved = 0
	}
	t.respond(st, pdu.ResidualOf(moved, t.expected()))
}

// execute runs a command that is no plain transfer.
func (t *task) execute() {
	if t.aborted.Load() {
		t.s.end(t, nil)
		return
	}
	data, st := t.cmd.Execute(t.ctx, t.out.params())
	if t.cmd.Dir == scsi.DataOut || bad(st) {
		t.conclude(st)
		return
	}
	t.deliver(data, st)
}
