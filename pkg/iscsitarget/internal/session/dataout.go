package session

import (
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// expectData prepares for the Data-Out of a command that was just decoded, and
// takes in what came with it. The caller holds the task's call; the task may have
// to wait for its turn, and early is what it was while it waited for others to come.
func (t *task) expectData(req pdu.SCSICommand, immediate []byte, waits bool, early *held) {
	s := t.s
	st := s.checkUnsolicited(req, len(immediate))
	if !bad(st) && early != nil && early.starved {
		st = scsi.StatusTaskSetFull
	}
	if !bad(st) {
		st = t.checkUnit(req)
	}
	if t.cmd.Dir == scsi.DataOut && t.cmd.Kind != scsi.Done {
		t.out.want = min(t.cmd.Length, int64(t.expectOut))
	}
	unasked := int64(0)
	if req.Write {
		unasked = min(int64(s.Params.FirstBurstLength), int64(t.expectOut))
		if req.Final {
			unasked = min(unasked, int64(len(immediate)))
		}
	}
	if !bad(st) && !waits && early == nil && t.direct(req, immediate) {
		return
	}
	if !bad(st) {
		st = t.prepare(unasked, waits)
	}
	s.mu.Lock()
	if bad(st) {
		t.fail(st)
	}
	b := t.out.unsolicited
	if b == nil && req.Write && !req.Final {
		b = &burst{t: t, ttt: pdu.NoTag, length: unasked, moved: time.Now()} // to be discarded
		t.out.unsolicited = b
	}
	s.mu.Unlock()
	if b != nil {
		t.take(b, immediate, req.Final)
	}
}

// checkUnsolicited holds a command to what was negotiated about unsolicited
// data; the sense is that of RFC 7143 section 11.4.7.2.
func (s *Session) checkUnsolicited(req pdu.SCSICommand, immediate int) scsi.Status {
	p := &s.Params
	if immediate > 0 && (!p.ImmediateData || !req.Write || immediate > int(p.FirstBurstLength) || immediate > int(req.ExpectedLength)) ||
		!req.Final && req.Write && p.InitialR2T {
		return scsi.SenseUnexpectedUnsolicitedData
	}
	return scsi.StatusGood
}

// checkUnit refuses a command information unit whose CDB means something else: a
// write that is flagged as a read, which would end well with nothing written,
// and a parameter list that is cut short or longer than the CDB says.
func (t *task) checkUnit(req pdu.SCSICommand) scsi.Status {
	c := &t.cmd
	if c.Kind == scsi.Done || c.Dir != scsi.DataOut {
		return scsi.StatusGood
	}
	switch {
	case t.expectIn > 0:
		return scsi.SenseInvalidFieldInCommandIU
	case c.Kind == scsi.Exec && int64(req.ExpectedLength) != c.Length:
		return c.WrongLength()
	}
	return scsi.StatusGood
}

// prepare finds room for the unasked bytes of a command that takes data: TASK
// SET FULL where there is none, since the reader cannot wait. Initiators answer
// that with a shallower queue. A task that waits for its turn leaves room for those
// before it.
func (t *task) prepare(unasked int64, waits bool) scsi.Status {
	var collect, buf *buffer
	keep := min(unasked, t.out.want)
	switch {
	case t.out.want == 0:
		return scsi.StatusGood
	case t.cmd.Kind == scsi.Exec:
		if collect = t.s.writes.tryGetSpare(int(t.out.want), waits); collect == nil {
			return scsi.StatusTaskSetFull
		}
	case keep > 0:
		if buf = t.s.writes.tryGetSpare(int(keep), waits); buf == nil {
			return scsi.StatusTaskSetFull
		}
	}
	t.s.mu.Lock()
	t.out.collect = collect
	if unasked > 0 {
		t.out.unsolicited = &burst{t: t, ttt: pdu.NoTag, length: unasked, buf: buf, moved: time.Now()}
	}
	t.s.mu.Unlock()
	return scsi.StatusGood
}

// dataOut takes a SCSI Data-Out (RFC 7143 section 11.7). One that belongs to no
// task is ignored: its task was aborted.
func (c *Connection) dataOut(p *pdu.PDU) {
	var t *task
	var direct piece
	if pdu.ParseDataOut(&p.BHS).TTT == pdu.NoTag {
		t = c.absorbUnsolicited(p)
	} else {
		t, direct = c.absorb(p)
	}
	if t != nil {
		t.goOn(c, direct)
	}
}

// absorbUnsolicited keeps unsolicited data whose command waits for its turn, and
// absorbs other. The turn may come by another connection's reader, which takes in
// first what came with the command.
func (c *Connection) absorbUnsolicited(p *pdu.PDU) *task {
	c.s.order.Lock()
	defer c.s.order.Unlock()
	if c.s.earlyDataOut(c, p) {
		return nil
	}
	t, _ := c.absorb(p)
	return t
}

// dataOutInTurn takes a Data-Out that was kept behind its command, which has had its
// turn, and was not gone on with.
func (c *Connection) dataOutInTurn(p *pdu.PDU) {
	if t, _ := c.absorb(p); t != nil {
		t.finish(scsi.StatusGood) // not the last call
	}
}

// absorb adds a Data-Out to the burst that it belongs to, and returns the burst's
// task with a call counted in; nil where there is none. Of what was asked for the reader
// may be to write a piece itself.
func (c *Connection) absorb(p *pdu.PDU) (*task, piece) {
	req := pdu.ParseDataOut(&p.BHS)
	t, b := c.findBurst(req)
	if t == nil {
		return nil, piece{}
	}
	data := p.Data
	if st := b.check(req, p); bad(st) {
		if !t.recovers(b) {
			c.s.mu.Lock()
			t.fail(st)
			c.s.mu.Unlock()
			b.length = 0
		}
		data = nil
	}
	b.dataSN++
	b.moved = time.Now()
	var direct piece
	if b.ttt != pdu.NoTag {
		direct = c.directPart(b, data)
	}
	t.take(b, data, req.Final)
	return t, direct
}

// check says what is wrong with a Data-Out of the burst. What else comes of the
// burst then is discarded, and with its end the task may end too: RFC 7143
// section 7.8 asks a target to wait for all the data that it asked for.
func (b *burst) check(req pdu.DataOut, p *pdu.PDU) scsi.Status {
	switch {
	case p.Damaged || b.broken:
		return scsi.SenseProtocolCRC
	case req.DataSN != b.dataSN || int64(req.BufferOffset) != b.start+b.got || int64(len(p.Data)) > b.length-b.got:
		// DataPDUInOrder and DataSequenceInOrder are Yes: something is
		// missing.
		return scsi.SenseNotEnoughUnsolicitedData
	}
	return scsi.StatusGood
}

// findBurst returns the task and burst that a Data-Out belongs to, with a call
// counted in that keeps both.
func (c *Connection) findBurst(req pdu.DataOut) (*task, *burst) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bursts[req.TTT]
	if req.TTT == pdu.NoTag && s.tasks[req.ITT] != nil {
		b = s.tasks[req.ITT].out.unsolicited
	}
	if b == nil || b.t.itt != req.ITT || !c.allegiant(b.t) || b.t.aborted.Load() || b.t.gone {
		return nil, nil
	}
	b.t.calls++
	return b.t, b
}

// take adds data to a burst, and closes the burst with its last PDU.
func (t *task) take(b *burst, data []byte, final bool) {
	if room := b.length - b.got; int64(len(data)) <= room {
		t.keep(b, data)
		b.got += int64(len(data))
		t.s.stats.BytesWritten.Add(uint64(len(data)))
	}
	if final {
		t.closeBurst(b)
	}
}

// keep copies data to where it waits for the device; what the command has no
// use for is dropped.
func (t *task) keep(b *burst, data []byte) {
	at, into := b.got, b.buf
	if t.out.collect != nil {
		at, into = b.start+b.got, t.out.collect
	}
	if into != nil && at < int64(len(into.b)) && b.written <= b.got {
		copy(into.b[at:], data)
	}
}

// closeBurst hands a burst's data to a worker and asks for the next one.
func (t *task) closeBurst(b *burst) {
	s := t.s
	s.mu.Lock()
	if b == t.out.unsolicited {
		t.out.unsolicited = nil
		t.out.asked = b.got
		if b.dataSN > 0 && b.got < b.length && b.length < int64(t.expectOut) && !b.broken {
			// RFC 7143 section 11.4.7.2: with unsolicited Data-Out all
			// of the first burst must come, where there is more.
			t.fail(scsi.SenseNotEnoughUnsolicitedData)
		}
	} else {
		t.out.replace(b, nil)
		delete(s.bursts, b.ttt)
		switch {
		case b.broken: // what is missing is asked for anew
			t.out.asked = b.start + b.got
		case b.got < b.length:
			t.fail(scsi.SenseNotEnoughUnsolicitedData)
		}
	}
	write := t.worthWriting(b)
	hold := write && t.dormancy != enabled
	switch {
	case hold:
		t.out.held = b
	case write:
		t.calls++
	}
	s.mu.Unlock()
	switch {
	case hold:
	case write:
		s.workers.submit(b.op())
	default:
		b.buf.free()
	}
}

// worthWriting: a burst that is complete has something for the device. Session.mu
// is held.
func (t *task) worthWriting(b *burst) bool {
	return b != nil && b.buf != nil && b.useful() > b.written && !t.out.stopped && !t.aborted.Load()
}

// useful is how many of the burst's bytes the command has a use for.
func (b *burst) useful() int64 { return min(b.got, max(0, b.t.out.want-b.start)) }

// op writes the burst.
func (b *burst) op() op {
	return op{t: b.t, call: writeOp, buf: b.buf, from: int(b.written), n: int(b.useful()), off: b.start}
}

func writeOp(o op) {
	st := scsi.StatusGood
	if !o.t.aborted.Load() {
		st = o.t.cmd.WriteAt(o.buf.b[o.from:o.n], o.off+int64(o.from))
	}
	o.buf.free()
	if o.t.finish(st) {
		o.t.proceed(false)
	}
}

// step is what the reader does after it has worked for a task: conclude it, or
// see to it that its next data is asked for.
func (t *task) step(complete bool) {
	if complete {
		t.proceed(true)
		return
	}
	t.solicitNext()
}
