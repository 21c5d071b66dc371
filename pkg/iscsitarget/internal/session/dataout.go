package session

import (
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// inbound is the Data-Out side of a task, guarded by Session.mu. Data comes in
// bursts: one that the initiator sends unasked (immediate and unsolicited
// data), then those that an R2T asks for, one at a time.
type inbound struct {
	want    int64 // bytes that the command takes
	asked   int64 // up to here data has come or is asked for
	stopped bool  // nothing more is asked for
	r2tSN   uint32

	unsolicited, solicited *burst
	// collect holds the whole parameter list of an Exec; a Write has a
	// buffer a burst instead.
	collect *buffer
}

// burst is one sequence of Data-Out PDUs.
type burst struct {
	ttt    uint32
	start  int64 // offset of its first byte in the task's data
	length int64 // bytes that may come
	got    int64
	dataSN uint32
	buf    *buffer // nil where the data is collected, or of no use
	// moved is when the initiator was asked, or sent something, last: zero
	// until it is asked.
	moved time.Time
}

// settled: no data is under way and none will be asked for.
func (in *inbound) settled() bool {
	return in.unsolicited == nil && in.solicited == nil && (in.stopped || in.asked >= in.want)
}

// free gives back what the task holds when it ends.
func (in *inbound) free() {
	for _, b := range []*burst{in.unsolicited, in.solicited} {
		if b != nil {
			b.buf.free()
		}
	}
	in.collect.free()
	in.unsolicited, in.solicited, in.collect = nil, nil, nil
}

// params is what an Exec collected.
func (in *inbound) params() []byte {
	if in.collect == nil {
		return nil
	}
	return in.collect.b[:in.want]
}

// overdue: data that the initiator owes has not moved since then.
func (in *inbound) overdue(since time.Time) bool {
	for _, b := range []*burst{in.unsolicited, in.solicited} {
		if b != nil && !b.moved.IsZero() && b.moved.Before(since) {
			return true
		}
	}
	return false
}

// expectData prepares for the Data-Out of a command that was just decoded, and
// takes in what came with it. The reader calls it, holding the task's call.
func (t *task) expectData(req pdu.SCSICommand, immediate []byte) {
	s := t.s
	st := s.checkUnsolicited(req, len(immediate))
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
	if !bad(st) {
		st = t.prepare(unasked)
	}
	s.mu.Lock()
	if bad(st) {
		t.fail(st)
	}
	b := t.out.unsolicited
	if b == nil && req.Write && !req.Final {
		b = &burst{ttt: pdu.NoTag, length: unasked, moved: time.Now()} // to be discarded
		t.out.unsolicited = b
	}
	s.mu.Unlock()
	if b != nil {
		t.take(b, immediate, req.Final)
	}
	t.step(t.finish(scsi.StatusGood))
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
// that with a shallower queue.
func (t *task) prepare(unasked int64) scsi.Status {
	var collect, buf *buffer
	keep := min(unasked, t.out.want)
	switch {
	case t.out.want == 0:
		return scsi.StatusGood
	case t.cmd.Kind == scsi.Exec:
		if collect = t.s.writes.tryGet(int(t.out.want)); collect == nil {
			return scsi.StatusTaskSetFull
		}
	case keep > 0:
		if buf = t.s.writes.tryGet(int(keep)); buf == nil {
			return scsi.StatusTaskSetFull
		}
	}
	t.s.mu.Lock()
	t.out.collect = collect
	if unasked > 0 {
		t.out.unsolicited = &burst{ttt: pdu.NoTag, length: unasked, buf: buf, moved: time.Now()}
	}
	t.s.mu.Unlock()
	return scsi.StatusGood
}

// dataOut takes a SCSI Data-Out (RFC 7143 section 11.7). One that belongs to no
// task is ignored: its task was aborted.
func (s *Session) dataOut(p *pdu.PDU) error {
	req := pdu.ParseDataOut(&p.BHS)
	t, b := s.findBurst(req)
	if t == nil {
		return nil
	}
	if st := b.check(req, p); bad(st) {
		s.mu.Lock()
		t.fail(st)
		s.mu.Unlock()
		b.length = 0
	}
	b.dataSN++
	b.moved = time.Now()
	t.take(b, p.Data, req.Final)
	t.step(t.finish(scsi.StatusGood))
	return nil
}

// check says what is wrong with a Data-Out of the burst. What else comes of the
// burst then is discarded, and with its end the task may end too: RFC 7143
// section 7.8 asks a target to wait for all the data that it asked for.
func (b *burst) check(req pdu.DataOut, p *pdu.PDU) scsi.Status {
	switch {
	case p.Damaged:
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
func (s *Session) findBurst(req pdu.DataOut) (*task, *burst) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.bursts[req.TTT]
	if req.TTT == pdu.NoTag {
		t = s.tasks[req.ITT]
	}
	if t == nil || t.itt != req.ITT || t.aborted.Load() || t.gone {
		return nil, nil
	}
	b := t.out.solicited
	if req.TTT == pdu.NoTag {
		b = t.out.unsolicited
	}
	if b == nil {
		return nil, nil
	}
	t.calls++
	return t, b
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
	if into != nil && at < int64(len(into.b)) {
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
		if b.dataSN > 0 && b.got < b.length && b.length < int64(t.expectOut) {
			// RFC 7143 section 11.4.7.2: with unsolicited Data-Out all
			// of the first burst must come, where there is more.
			t.fail(scsi.SenseNotEnoughUnsolicitedData)
		}
	} else {
		t.out.solicited = nil
		delete(s.bursts, b.ttt)
		if b.got < b.length {
			t.fail(scsi.SenseNotEnoughUnsolicitedData)
		}
	}
	n := min(b.got, max(0, t.out.want-b.start))
	write := b.buf != nil && n > 0 && !t.out.stopped && !t.aborted.Load()
	if write {
		t.calls++
	}
	s.mu.Unlock()
	if !write {
		b.buf.free()
		return
	}
	s.workers.submit(op{t: t, call: writeOp, buf: b.buf, n: int(n), off: b.start})
}

func writeOp(o op) {
	st := scsi.StatusGood
	if !o.t.aborted.Load() {
		st = o.t.cmd.WriteAt(o.buf.b[:o.n], o.off)
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

// solicitNext asks for the next burst if one is due; where memory is short the
// granter waits for it.
func (t *task) solicitNext() {
	t.s.mu.Lock()
	in := &t.out
	due := !t.aborted.Load() && !t.gone && in.unsolicited == nil && in.solicited == nil && !in.stopped && in.asked < in.want
	if due {
		t.calls++
		in.solicited = &burst{start: in.asked, length: min(in.want-in.asked, int64(t.s.Params.MaxBurstLength), maxBuffer)}
		in.asked += in.solicited.length
	}
	t.s.mu.Unlock()
	if !due {
		return
	}
	if t.out.collect != nil {
		t.solicit(nil)
		return
	}
	if buf := t.s.writes.tryGet(t.burstLength()); buf != nil {
		t.solicit(buf)
		return
	}
	t.s.granter.submit(t)
}

// burstLength is the length in bytes of the burst that is asked for next.
func (t *task) burstLength() int { return int(t.out.solicited.length) }

// solicit sends the R2T (RFC 7143 section 11.8) for the burst that solicitNext
// made, which gets buf. It ends the call that solicitNext counted in.
func (t *task) solicit(buf *buffer) {
	s := t.s
	s.mu.Lock()
	b := t.out.solicited
	if t.aborted.Load() || buf == nil && t.out.collect == nil {
		t.out.stopped, t.out.solicited = true, nil
		s.mu.Unlock()
		buf.free()
		t.step(t.finish(scsi.StatusTaskAborted))
		return
	}
	b.buf = buf
	b.ttt, b.moved = s.newTransferTag(), time.Now()
	s.bursts[b.ttt] = t
	h := pdu.R2T{LUN: t.lun, ITT: t.itt, TTT: b.ttt, R2TSN: t.out.r2tSN, Offset: uint32(b.start), Length: uint32(b.length)}
	t.out.r2tSN++
	s.mu.Unlock()
	s.outbox.send(h.Header(), nil, nil, nextStatSN)
	// The burst may have come, and been written, by now.
	t.step(t.finish(scsi.StatusGood))
}

// newTransferTag returns a Target Transfer Tag that is not in use. Session.mu
// is held.
func (s *Session) newTransferTag() uint32 {
	for {
		s.nextTTT++
		if _, used := s.bursts[s.nextTTT]; !used && s.nextTTT != pdu.NoTag {
			return s.nextTTT
		}
	}
}
