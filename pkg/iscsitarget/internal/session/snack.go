package session

import (
	"slices"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// What is here is error recovery level 1 (RFC 7143 section 7): what was sent and may
// have been damaged is kept until it is acknowledged, and sent again where a SNACK
// Request asks for it. Damaged Data-Out is asked for again in dataout.go.

const (
	// unackedLimit is how many PDUs with status a connection keeps: an initiator
	// that acknowledges none has it closed.
	unackedLimit = 1024
	// unackedBytes is how many bytes it keeps with them, of data that is on no budget.
	unackedBytes = 4 << 20
	// ackInterval is after how many bytes that are kept it is asked to.
	ackInterval = 64 << 10
	// recoveryLimit is how often damaged data of one command is asked for anew.
	recoveryLimit = 16
)

// answer is a PDU with status that was sent.
type answer struct {
	header pdu.BHS
	data   []byte
	t      *task // whose status it is, nil for others
}

// size is what it keeps of data that is on no budget, in bytes.
func (a *answer) size() int {
	n := len(a.data)
	if a.t != nil && a.t.cmd.Kind != scsi.Read {
		n += int(a.t.sent)
	}
	return n
}

// dataIn is a Data-In that was sent.
type dataIn struct {
	pdu.DataIn
	data []byte
	buf  *buffer
}

func (p *dataIn) post(o *outbox) {
	p.buf.share()
	o.postPart(p.Header(), p.data, p.buf)
}

// again is what a task may have to send again, guarded by Session.mu.
type again struct {
	parts  []dataIn // by DataSN, without a gap
	stated bool     // the status was sent
	paused bool     // nobody works for the task, though it has data to send
	tag    uint32   // of the last R-Data SNACK
}

// recoverable: what the task sends is kept.
func (t *task) recoverable() bool { return t.s.Params.ErrorRecoveryLevel > 0 }

// recovers marks a burst of which data is missing; false means that its task fails
// for it.
func (t *task) recovers(b *burst) bool {
	if !t.recoverable() {
		return false
	}
	if !b.broken {
		if t.out.recoveries >= recoveryLimit {
			return false
		}
		t.out.recoveries++
		b.broken = true
	}
	return true
}

// sendPartly sends data that is kept, in Data-Ins that the initiator takes, and takes
// buf over, which the data lies in. Where a sequence ends the initiator is asked to
// acknowledge it, so that the memory of a long read is bounded.
func (t *task) sendPartly(data []byte, buf *buffer, last bool) {
	s := t.s
	s.mu.Lock()
	p := dataIn{DataIn: pdu.DataIn{ITT: t.itt, DataSN: t.dataSN, BufferOffset: uint32(t.sent)}, data: data, buf: buf}
	if p.Final = t.moved(data, last); p.Final && !last {
		p.Acknowledge, p.LUN, p.TTT = true, t.lun, s.newTransferTag()
		s.acks[p.TTT] = t
	}
	n := len(t.again.parts)
	t.dataSN = t.split(p, t.dataSN, int(t.conn.Load().maxSend.Load()))
	for i := range t.again.parts[n:] {
		t.again.parts[n+i].post(t.outbox())
	}
	s.mu.Unlock()
	t.outbox().room()
}

// readKept is readOut for what is kept. The memory of a whole sequence is taken at
// once.
func (t *task) readKept() {
	for {
		most := int64(t.s.Params.MaxBurstLength)
		bufs := t.s.reads.getAll(int(min(t.toSend()-t.sent, most-t.sent%most)), &t.halted)
		if bufs == nil || t.aborted.Load() {
			freeAll(bufs)
			t.pause()
			return
		}
		for i, buf := range bufs {
			if st := t.cmd.ReadAt(buf.b, t.sent); bad(st) {
				freeAll(bufs[i:])
				t.respond(st, pdu.ResidualOf(t.sent, t.expected()))
				return
			}
			t.sendPartly(buf.b, buf, t.sent+int64(len(buf.b)) == t.toSend())
		}
		if t.sent == t.toSend() {
			t.respond(scsi.StatusGood, pdu.ResidualOf(t.cmd.Length, t.expected()))
			return
		}
	}
}

func freeAll(bufs []*buffer) {
	for _, b := range bufs {
		b.free()
	}
}

// acknowledged lets go of the Data-Ins below a DataSN. Session.mu is held.
func (a *again) acknowledged(t *task, below uint32) {
	for len(a.parts) > 0 && serialLess(a.parts[0].DataSN, below) {
		if a.parts[0].Acknowledge {
			delete(t.s.acks, a.parts[0].TTT)
		}
		a.parts[0].buf.free()
		a.parts = a.parts[1:]
	}
}

// drop lets go of all.
func (a *again) drop(t *task) {
	if !t.recoverable() {
		return
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	a.acknowledged(t, t.dataSN)
	a.parts = nil
}

// press asks for an acknowledgement now and then, when a PDU is kept, which may be a
// task's last one: an initiator that has nothing to send acknowledges nothing.
func (o *outbox) press(t *task) {
	o.mu.Lock()
	full := len(o.unacked) > unackedLimit || o.kept > unackedBytes
	o.owed += 1 << 10
	if t != nil {
		o.owed += int(t.sent)
	}
	due := o.owed >= ackInterval
	if due {
		o.owed = 0
	}
	if due && o.asked.IsZero() {
		o.asked = time.Now()
	}
	o.mu.Unlock()
	switch {
	case full:
		_ = o.socket.conn.Close()
	case due:
		o.post(pdu.NopIn{ITT: pdu.NoTag, TTT: pingTag}.Header(), nextStatSN)
	}
}

// acknowledge lets go of the PDUs with status below expStatSN.
func (o *outbox) acknowledge(expStatSN uint32) {
	o.mu.Lock()
	n := 0
	if !serialLess(o.statSN, expStatSN) { // else it expects what was never sent
		if serialLess(o.acked, expStatSN) {
			o.acked = expStatSN
		}
		for n < len(o.unacked) && serialLess(o.unacked[n].header.StatSN(), expStatSN) {
			o.kept -= o.unacked[n].size()
			n++
		}
	}
	if n > 0 {
		o.asked = time.Time{}
	}
	done := o.unacked[:n:n]
	o.unacked = o.unacked[n:]
	o.mu.Unlock()
	for i := range done {
		if t := done[i].t; t != nil {
			t.again.drop(t)
		}
		done[i] = answer{}
	}
}

// ignored: the initiator was asked to acknowledge before then, and has acknowledged
// nothing.
func (o *outbox) ignored(since time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.asked.IsZero() && o.asked.Before(since)
}

// discard lets go of everything that is kept, for good.
func (o *outbox) discard() {
	o.mu.Lock()
	o.retains = false
	next := o.statSN
	o.mu.Unlock()
	o.acknowledge(next)
}

// snack sends again what a SNACK Request asks for (RFC 7143 section 11.16).
func (c *Connection) snack(req pdu.SNACK, p *pdu.PDU) {
	reason := byte(pdu.RejectInvalidField)
	switch req.Type {
	case pdu.SNACKStatus:
		reason = c.outbox.resend(req.BegRun, req.RunLength)
	case pdu.SNACKData:
		reason = c.resendData(req)
	case pdu.SNACKDataACK:
		reason = c.dataACK(req)
	case pdu.SNACKRData:
		reason = c.resegment(req)
	}
	if reason != 0 {
		c.reject(reason, p)
	}
}

// run is the numbers that a SNACK Request asks for, out of those from first to next;
// reason is why there are none.
func run(begin, length, first, next uint32) (from, to uint32, reason byte) {
	switch {
	case serialLess(begin, first):
		return 0, 0, pdu.RejectProtocolError // it was acknowledged
	case serialLess(next, begin) || length > next-begin:
		return 0, 0, pdu.RejectSNACK // it was never sent
	case length == 0:
		return begin, next, 0
	}
	return begin, begin + length, 0
}

// resend sends PDUs with status once more, as they were.
func (o *outbox) resend(begin, length uint32) (reason byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	from, to, reason := run(begin, length, o.statSN-uint32(len(o.unacked)), o.statSN)
	if reason != 0 {
		return reason
	}
	for _, a := range o.unacked {
		if sn := a.header.StatSN(); !serialLess(sn, from) && serialLess(sn, to) {
			o.queue = append(o.queue, outgoing{header: a.header, data: a.data})
			o.bytes += pdu.BHSLen + len(a.data)
		}
	}
	o.change.Broadcast()
	return 0
}

// answered finds a task of the connection whose status was sent.
func (o *outbox) answered(itt uint32) *task {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.unacked, func(a answer) bool { return a.t != nil && a.t.itt == itt })
	if i < 0 {
		return nil
	}
	return o.unacked[i].t
}

// sender finds the task that a SNACK Request is about. Session.mu is held.
func (c *Connection) sender(itt uint32) *task {
	t := c.s.tasks[itt]
	if t == nil || t.again.stated {
		t = c.outbox.answered(itt)
	}
	if t == nil || !c.allegiant(t) || t.aborted.Load() {
		return nil
	}
	return t
}

// resendData sends Data-Ins or R2Ts once more, as they were.
func (c *Connection) resendData(req pdu.SNACK) (reason byte) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	t := c.sender(req.ITT)
	if t == nil {
		return pdu.RejectSNACK
	}
	if t.expectOut > 0 {
		return t.resendR2Ts(req)
	}
	from, to, reason := run(req.BegRun, req.RunLength, t.dataSN-uint32(len(t.again.parts)), t.dataSN)
	if reason != 0 {
		return reason
	}
	asked := func(p dataIn) bool { return !serialLess(p.DataSN, from) && serialLess(p.DataSN, to) }
	for _, p := range t.again.parts {
		if asked(p) && len(p.data) > int(c.maxSend.Load()) {
			return pdu.RejectSNACK // RFC 7143 section 11.16: R-Data is for these
		}
	}
	for _, p := range t.again.parts {
		if asked(p) {
			p.post(c.outbox)
		}
	}
	return 0
}

// resendR2Ts sends the R2Ts once more whose data has not come. Session.mu is held.
func (t *task) resendR2Ts(req pdu.SNACK) (reason byte) {
	from, to, reason := run(req.BegRun, req.RunLength, 0, t.out.r2tSN)
	if reason != 0 {
		return reason
	}
	for _, b := range t.out.solicited {
		if b != nil && b.ttt != 0 && !serialLess(b.r2tSN, from) && serialLess(b.r2tSN, to) {
			t.outbox().post(b.r2t(), nextStatSN)
		}
	}
	return 0
}

// dataACK lets go of the Data-Ins that the initiator has.
func (c *Connection) dataACK(req pdu.SNACK) (reason byte) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	t := c.s.acks[req.TTT]
	if t == nil || t.lun != req.LUN || serialLess(t.dataSN, req.BegRun) || req.RunLength != 0 {
		return pdu.RejectInvalidDataACK
	}
	t.again.acknowledged(t, req.BegRun)
	return 0
}

// resegment sends all the Data-Ins once more that were not acknowledged, none longer
// than the initiator takes now, and the status behind them (RFC 7143 section 11.16.1,
// R-Data). Those of a command that is still sending have to wait for its end.
func (c *Connection) resegment(req pdu.SNACK) (reason byte) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	t := c.sender(req.ITT)
	if t == nil || !t.again.stated {
		return pdu.RejectSNACK
	}
	if req.BegRun != 0 || req.RunLength != 0 || req.TTT == 0 || req.TTT == pdu.NoTag {
		return pdu.RejectInvalidField
	}
	t.again.tag = req.TTT
	t.sendAll(c)
	c.outbox.restate(t)
	return 0
}

// sendAll sends what is kept over a connection, in pieces that its initiator takes now.
// Session.mu is held.
func (t *task) sendAll(c *Connection) {
	old := t.again.parts
	t.again.parts = nil
	sn := t.dataSN - uint32(len(old))
	for _, p := range old {
		sn = t.split(p, sn, int(c.maxSend.Load()))
	}
	t.dataSN = sn
	for i := range t.again.parts {
		t.again.parts[i].post(c.outbox)
	}
}

// split adds a Data-In, in pieces of at most n bytes, numbered from sn on, and takes
// it over. Session.mu is held.
func (t *task) split(p dataIn, sn uint32, n int) (next uint32) {
	for first := true; ; first = false {
		piece := p
		piece.DataSN = sn
		sn++
		rest := len(p.data) - n
		if !first {
			p.buf.share()
		}
		if rest <= 0 {
			t.again.parts = append(t.again.parts, piece)
			return sn
		}
		piece.data, piece.Final, piece.Acknowledge = p.data[:n], false, false
		t.again.parts = append(t.again.parts, piece)
		p.data, p.BufferOffset = p.data[n:], p.BufferOffset+uint32(n)
	}
}

// restated is the status of a task with what has become of its Data-Ins and R2Ts.
// Session.mu is held.
func (t *task) restated(h pdu.BHS) pdu.BHS {
	resp := pdu.ParseSCSIResponse(&h)
	resp.SNACKTag, resp.ExpDataSN = t.again.tag, t.dataSN+t.out.r2tSN
	return resp.Header()
}

// restate sends the status of a task once more, with what has become of its Data-Ins.
func (o *outbox) restate(t *task) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.unacked {
		a := &o.unacked[i]
		if a.t != t {
			continue
		}
		h := t.restated(a.header)
		h.SetStatSN(a.header.StatSN())
		h.SetDataLen(len(a.data))
		a.header = h
		o.queue = append(o.queue, outgoing{header: h, data: a.data})
		o.bytes += pdu.BHSLen + len(a.data)
		o.change.Broadcast()
	}
}
