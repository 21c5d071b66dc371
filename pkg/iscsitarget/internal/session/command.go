package session

import (
	"context"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// scsiCommand starts a SCSI command (RFC 7143 section 11.3).
func (s *Session) scsiCommand(p *pdu.PDU) error {
	req := pdu.ParseSCSICommand(&p.BHS)
	t := &task{s: s, itt: req.ITT, lun: req.LUN, immediate: req.Immediate, ctx: context.Background()}
	switch {
	case req.Read && req.Write:
		return s.rejectNumbered(pdu.RejectNotSupported, p) // bidirectional
	case req.Read:
		t.expectIn = req.ExpectedLength
	case req.Write:
		t.expectOut = req.ExpectedLength
	}
	if req.Immediate && s.immediateFull() {
		return s.reject(pdu.RejectImmediate, p)
	}
	if req.ITT == pdu.NoTag {
		return s.rejectNumbered(pdu.RejectInvalidField, p)
	}
	if s.leaving {
		return s.rejectNumbered(pdu.RejectWaitingForLogout, p)
	}
	if s.tagInUse(req.ITT) {
		return s.rejectNumbered(pdu.RejectTaskInProgress, p)
	}
	if req.Attr > attrACA {
		return s.rejectNumbered(pdu.RejectInvalidField, p)
	}
	// Who aborts tasks after a reservation has changed must find every one
	// that the reservation before has let through.
	s.add(t)
	t.decode(req, p)
	s.stats.count(t.cmd.Kind)
	waits := t.join(req.Attr)
	t.expectData(req, p.Data, waits)
	if waits {
		t.arrived()
	}
	return nil
}

// attrACA is the last task attribute; there is no ACA.
const attrACA = 4

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
	t.cmd = t.s.nexus.Decode(req.LUN, cdb)
	if req.Attr == attrACA && !bad(t.cmd.Status) {
		t.cmd = scsi.Command{Status: scsi.SenseInvalidMessage}
	}
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
	case t.cmd.Kind == scsi.Read && onReader && t.readInPlace():
	case onReader:
		t.s.workers.submit(op{t: t, call: proceedOp})
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
