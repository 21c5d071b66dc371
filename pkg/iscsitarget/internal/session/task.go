package session

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// task is one SCSI command under way. It ends when its data has come, its calls
// have returned and nothing is left to ask for; whoever notices that (finish
// says so) concludes it. An aborted task ends, without a status, as soon as no
// call of it runs any more.
type task struct {
	s         *Session
	conn      atomic.Pointer[Connection] // that it is allegiant to
	itt       uint32
	lun       [8]byte
	immediate bool
	head      bool   // HEAD OF QUEUE, or as urgent
	aca       bool   // the ACA attribute
	expectIn  uint32 // bytes of Data-In that the initiator expects
	expectOut uint32 // bytes of Data-Out that it is ready to send
	cmd       scsi.Command

	// Data-In: how far the transfer is. Owned by the call that moves it.
	sent   int64
	dataSN uint32
	again  again // what may have to be sent again

	// background is guarded by who has the read in hand: the reader, then the device.
	background background

	// piece is immediate data that the reader is to write.
	piece piece
	// shared: others than the reader that took it in may have it. It is set before they
	// do.
	shared atomic.Bool

	faulted bool // it ends with CHECK CONDITION: owned by the call that concludes it

	// Guarded by Session.mu.
	out       inbound
	status    scsi.Status // the first failure, or GOOD
	calls     int         // that work for the task: of the reader, workers, the granter
	answered  bool        // its tag may be used again
	gone      bool
	told      bool // aborted, but its initiator gets TASK ABORTED
	draining  bool // to be aborted when the data that R2Ts ask for has come
	abortions []*abortion
	dormancy  dormancy
	arriving  bool // the reader has a dormant task in hand

	turn scsi.Turn

	// aborted is set under Session.mu, and read without it by those who wait
	// for memory.
	aborted atomic.Bool
	// halted is set with aborted, and when the task's connection is lost: nobody
	// is to wait for memory on its behalf.
	halted atomic.Bool

	ctx    context.Context    // of an Exec; Background otherwise
	cancel context.CancelFunc // set under Session.mu
}

// spareTasks are those that have ended and that nobody has any more.
var spareTasks = sync.Pool{New: func() any { return new(task) }}

func newTask() *task {
	t := spareTasks.Get().(*task)
	t.ctx = context.Background()
	return t
}

// recycle gives back a task that its reader has concluded, where nobody else can have
// it.
func (t *task) recycle() {
	if t.shared.Load() || t.faulted || t.recoverable() {
		return
	}
	*t = task{}
	spareTasks.Put(t)
}

// outbox is where what the task sends goes.
func (t *task) outbox() *outbox { return t.conn.Load().outbox }

// tagInUse says whether a task with that tag is under way.
func (s *Session) tagInUse(itt uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[itt]
	return t != nil && !t.answered
}

// add takes a new task in, with one call under way: the reader's.
func (s *Session) add(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tasks[t.itt] = t
	t.calls = 1
	if t.immediate {
		s.immediate++
	}
}

// finish counts a call out, with its outcome. true means that the task is
// complete but for its conclusion: the call goes on to conclude it.
func (t *task) finish(st scsi.Status) (complete bool) {
	t.s.mu.Lock()
	if bad(st) {
		t.fail(st)
	}
	if t.draining && t.out.underWay() == 0 {
		t.aborted.Store(true)
		t.halted.Store(true)
	}
	if t.calls == 1 && !t.aborted.Load() && t.out.settled() {
		t.s.mu.Unlock()
		return true
	}
	t.calls--
	over := t.calls == 0 && t.aborted.Load()
	t.s.mu.Unlock()
	if over {
		t.s.end(t, nil)
	}
	return false
}

// fail remembers the first failure; no more data is asked for. Session.mu is
// held.
func (t *task) fail(st scsi.Status) {
	if !bad(t.status) {
		t.status = st
	}
	t.out.stopped = true
}

func bad(st scsi.Status) bool { return st.Code() != scsi.Good }

// respond ends a task with a SCSI Response (RFC 7143 section 11.4).
func (t *task) respond(st scsi.Status, residual pdu.Residual) {
	t.faulted = st.Code() == scsi.CheckCondition
	if t.faulted && t.s.fault(t, st, residual) {
		return
	}
	t.s.end(t, func() {
		if t.recoverable() || st.IsAttention() {
			// An attention may be of what was aborted (RFC 7143 section 4.2.2.3.4).
			t.conn.Load().fenced(func() { t.postStatus(st, residual) })
			t.outbox().room()
			return
		}
		t.outbox().send(t.response(st, residual), senseSegment(st), nil, takesStatSN)
	})
}

func (t *task) response(st scsi.Status, residual pdu.Residual) pdu.BHS {
	return pdu.SCSIResponse{Status: st.Code(), ITT: t.itt, ExpDataSN: t.dataSN + t.out.r2tSN, Residual: residual}.Header()
}

// postStatus sends the status of a task without waiting. The task is not given
// another connection meanwhile.
func (t *task) postStatus(st scsi.Status, residual pdu.Residual) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.again.stated = true
	if !t.outbox().postStatus(t.response(st, residual), senseSegment(st), t) {
		t.again.acknowledged(t, t.dataSN)
	}
}

// senseSegment is the data segment of a response: the sense data behind its
// length (RFC 7143 section 11.4.7).
func senseSegment(st scsi.Status) []byte {
	if !bad(st) {
		return nil
	}
	b := st.AppendSense(make([]byte, 2, 64))
	if len(b) == 2 {
		return nil
	}
	b[0], b[1] = byte((len(b)-2)>>8), byte(len(b)-2)
	return b
}

// end takes a task out of the session, sends its status unless it was aborted,
// and tells the task management functions that wait for it: in this order. The
// window is open before the status goes, and those that waited for the task's end
// have their turn: an initiator that takes no status must not hold up others. It
// returns whether the status was sent.
func (s *Session) end(t *task, status func()) bool {
	if !s.retire(t) {
		return false
	}
	send := status != nil && !t.aborted.Load()
	if !send && t.told {
		// Of a bounded number, and of another session's doing: it must not wait.
		status = func() {
			t.postStatus(scsi.StatusTaskAborted, pdu.ResidualOf(0, t.expected()))
		}
	}
	t.leave()
	if send || t.told {
		status()
	} else {
		t.again.drop(t)
	}
	s.forget(t)
	return send
}

// retire begins the end of a task: false where it had begun.
func (s *Session) retire(t *task) bool {
	s.mu.Lock()
	if t.gone {
		s.mu.Unlock()
		return false
	}
	t.gone, t.answered = true, true
	if t.immediate {
		s.immediate--
	}
	for _, b := range t.out.solicited {
		if b != nil { // the task was aborted: its data is of no use
			delete(s.bursts, b.ttt)
			t.outbox().retract(b.ttt)
		}
	}
	t.out.free()
	s.mu.Unlock()
	if t.faulted && !t.aborted.Load() {
		t.cmd.Fault()
	}
	if t.cancel != nil {
		t.cancel()
	}
	return true
}

// leave gives the task's places in the window and in the task set to others.
func (t *task) leave() {
	if !t.immediate {
		t.s.window.release()
	}
	t.turn.Leave()
}

// forget is the end of a task's end.
func (s *Session) forget(t *task) {
	s.mu.Lock()
	if s.tasks[t.itt] == t {
		delete(s.tasks, t.itt)
	}
	waiting := t.abortions
	t.abortions = nil
	s.mu.Unlock()
	for _, a := range waiting {
		a.one()
	}
}
