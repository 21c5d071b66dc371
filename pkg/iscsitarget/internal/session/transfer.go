package session

import (
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// deliver ends a command with data that is in memory already.
func (t *task) deliver(data []byte, st scsi.Status) {
	residual := pdu.ResidualOf(int64(len(data)), t.expected())
	data = data[:min(len(data), int(t.expectIn))]
	if bad(st) || len(data) == 0 {
		t.respond(st, residual)
		return
	}
	for {
		n := t.segment(int64(len(data)))
		if t.sendData(data[:n], nil, n == len(data), residual) {
			return
		}
		data = data[n:]
	}
}

// toSend is how many bytes a read sends: no more than the initiator expects.
func (t *task) toSend() int64 { return min(t.cmd.Length, int64(t.expectIn)) }

// segment is the length of the next Data-In of at most n bytes: it ends where
// the initiator's MaxRecvDataSegmentLength, a buffer or a burst does.
func (t *task) segment(n int64) int {
	most := int64(t.s.Params.MaxBurstLength)
	burst := most - t.sent%most
	return int(min(n, int64(t.conn.Load().maxSend.Load()), maxBuffer, burst))
}

// readInPlace serves a read on the reader, as far as that needs no waiting.
func (t *task) readInPlace() {
	switch r := t.readNow(); {
	case r == scsi.Ready:
		t.recycle()
	case r == scsi.Fetching && t.toSend() <= maxFetch:
		t.s.fetchers.submit(t)
	case t.beginRead():
	default:
		t.s.workers.submit(op{t: t, call: proceedOp})
	}
}

// readNow serves a read as far as that needs no waiting. Ready means that it has ended.
func (t *task) readNow() scsi.Readiness {
	for {
		if t.outbox().backedUp() {
			return scsi.Blocks
		}
		buf := t.s.reads.tryGet(t.segment(t.toSend() - t.sent))
		if buf == nil {
			return scsi.Blocks
		}
		st, r := t.cmd.ReadAtNowait(buf.b, t.sent)
		if r != scsi.Ready {
			buf.free()
			return r
		}
		if t.sendPart(buf, st) {
			return scsi.Ready
		}
	}
}

// readOut serves a read, or the rest of one, on a worker.
func (t *task) readOut() {
	for {
		if t.aborted.Load() {
			t.s.end(t, nil)
			return
		}
		buf := t.s.reads.get(t.segment(t.toSend()-t.sent), &t.halted)
		if buf == nil { // the task, or the session, is over
			t.s.end(t, nil)
			return
		}
		if t.sendPart(buf, t.cmd.ReadAt(buf.b, t.sent)) {
			return
		}
	}
}

// sendPart sends one part of a read; true means that the command has ended.
func (t *task) sendPart(buf *buffer, st scsi.Status) bool {
	if bad(st) {
		buf.free()
		t.respond(st, pdu.ResidualOf(t.sent, t.expected()))
		return true
	}
	last := t.sent+int64(len(buf.b)) == t.toSend()
	return t.sendData(buf.b, buf, last, pdu.ResidualOf(t.cmd.Length, t.expected()))
}

// sendData sends one Data-In (RFC 7143 section 11.7), and frees buf. The last one
// ends the command, which it then says: it carries status GOOD, but where it may have
// to be sent again a SCSI Response does.
func (t *task) sendData(data []byte, buf *buffer, last bool, residual pdu.Residual) bool {
	if t.recoverable() {
		t.sendPartly(data, buf, last)
		if last {
			t.respond(scsi.StatusGood, residual)
		}
		return last
	}
	h := t.nextDataIn(data, last)
	if !last {
		t.outbox().send(h.Header(), data, buf, noStatSN)
		return false
	}
	h.HasStatus, h.Residual = true, residual
	if !t.s.end(t, func() { t.outbox().send(h.Header(), data, buf, takesStatSN) }) {
		buf.free()
	}
	return true
}

// sendWhole sends a read in one Data-In, with its status, and waits for nothing: what is
// under way so is on the budget of the session. The task is not one that may have to send
// again.
func (t *task) sendWhole(buf *buffer) {
	h := t.nextDataIn(buf.b, true)
	h.HasStatus, h.Residual = true, pdu.ResidualOf(t.cmd.Length, t.expected())
	if !t.s.end(t, func() { t.outbox().offer(h.Header(), buf.b, buf) }) {
		buf.free()
	}
}

// nextDataIn is the header of a Data-In, but for what a status adds.
func (t *task) nextDataIn(data []byte, last bool) pdu.DataIn {
	h := pdu.DataIn{ITT: t.itt, DataSN: t.dataSN, BufferOffset: uint32(t.sent)}
	t.dataSN++
	h.Final = t.moved(data, last)
	return h
}

// moved counts data as sent, and says whether its sequence ends with it.
func (t *task) moved(data []byte, last bool) (final bool) {
	t.sent += int64(len(data))
	t.s.stats.BytesRead.Add(uint64(len(data)))
	return last || t.sent%int64(t.s.Params.MaxBurstLength) == 0
}
