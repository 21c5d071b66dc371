package session

import (
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// solicitNext asks for the next burst if one is due. Where memory is short the
// granter waits for it on behalf of a task that has no burst under way; the others
// ask again when one of theirs is over.
func (t *task) solicitNext() {
	for {
		b, extra := t.nextBurst()
		if b == nil {
			return
		}
		if t.out.collect != nil {
			t.solicit(b, nil)
			return
		}
		if buf := t.s.writes.tryGetSpare(int(b.length), extra); buf != nil {
			t.solicit(b, buf)
			return
		}
		if !extra {
			t.s.granter.submit(b)
			return
		}
		if !t.withdraw(b) {
			return
		}
	}
}

// nextBurst makes the next burst if one is due, and counts a call in that solicit
// or withdraw ends; extra says that others of the task are under way.
func (t *task) nextBurst() (b *burst, extra bool) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	in := &t.out
	n := in.underWay()
	if t.dormancy != enabled || t.aborted.Load() || t.gone || in.unsolicited != nil || in.asking || in.stopped || in.asked >= in.want ||
		t.lost() || n >= min(int(t.s.Params.MaxOutstandingR2T), maxR2Ts) {
		return nil, false
	}
	t.calls++
	t.shared.Store(true)
	b = &burst{t: t, start: in.asked, length: min(in.want-in.asked, int64(t.s.Params.MaxBurstLength), maxBuffer)}
	in.asking = true
	in.asked += b.length
	in.replace(nil, b)
	return b, n > 0
}

// withdraw takes back a burst that there was no memory for. It returns whether to
// try again: what was under way may have ended meanwhile, and found that somebody
// was asking.
func (t *task) withdraw(b *burst) (again bool) {
	t.s.mu.Lock()
	t.out.replace(b, nil)
	t.out.asking, t.out.asked = false, b.start
	again = t.out.underWay() == 0
	t.s.mu.Unlock()
	if t.finish(scsi.StatusGood) {
		t.proceed(true)
		return false
	}
	return again
}

// solicit sends the R2T (RFC 7143 section 11.8) for a burst that nextBurst made,
// which gets buf. A task that has failed meanwhile asks for nothing more, one whose
// connection was lost for nothing now.
func (t *task) solicit(b *burst, buf *buffer) {
	s := t.s
	s.mu.Lock()
	if t.aborted.Load() || t.out.stopped || buf == nil && t.out.collect == nil {
		t.out.stopped, t.out.asking = true, false
		t.out.replace(b, nil)
		s.mu.Unlock()
		buf.free()
		t.step(t.finish(scsi.StatusTaskAborted))
		return
	}
	if t.lost() { // the next connection asks for it
		s.mu.Unlock()
		buf.free()
		if t.withdraw(b) {
			t.solicitNext()
		}
		return
	}
	b.buf = buf
	b.ttt, b.moved, b.r2tSN = s.newTransferTag(), time.Now(), t.out.r2tSN
	t.out.r2tSN++
	s.bursts[b.ttt] = b
	// Posted, so that the task is not given another connection meanwhile: the
	// window bounds how many there are.
	t.outbox().post(b.r2t(), nextStatSN)
	t.out.asking = false
	s.mu.Unlock()
	// The burst may have come, and been written, by now.
	t.step(t.finish(scsi.StatusGood))
}

// r2t is the R2T that asks for the burst.
func (b *burst) r2t() pdu.BHS {
	return pdu.R2T{LUN: b.t.lun, ITT: b.t.itt, TTT: b.ttt, R2TSN: b.r2tSN, Offset: uint32(b.start), Length: uint32(b.length)}.Header()
}

// newTransferTag returns a Target Transfer Tag that is not in use. Session.mu
// is held.
func (s *Session) newTransferTag() uint32 {
	for {
		s.nextTTT++
		if s.bursts[s.nextTTT] == nil && s.acks[s.nextTTT] == nil && s.nextTTT != pdu.NoTag && s.nextTTT != 0 {
			return s.nextTTT
		}
	}
}
