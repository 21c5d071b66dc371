package session

import (
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// dormancy is how far a task is from its turn in its task set (SAM-5 section
// 8.5). Until then it may collect what comes unasked, and asks for nothing: the
// memory that it would take may be what those before it wait for.
type dormancy uint8

const (
	enabled dormancy = iota // its turn has come
	dormant                 // one call more is counted than works for it
	called                  // its turn has come, and awakeOp is to come
)

// join takes a decoded task into its unit's task set; true means that it waits
// for its turn, and that the reader ends its part with arrived. A task that has
// failed, or does so because ACA keeps it out, waits for nobody: it does nothing.
func (t *task) join(attr scsi.Attribute) (waits bool) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.aborted.Load() || bad(t.status) {
		return false // whoever aborts must find those that wait
	}
	t.aca = attr == scsi.ACA
	t.head = attr == scsi.HeadOfQueue || t.aca
	if waits = t.cmd.Join(&t.turn, t); waits {
		t.dormancy, t.arriving = dormant, true
		t.shared.Store(true)
		t.calls++
	}
	return waits
}

// Enable implements [scsi.Waiter].
func (t *task) Enable() {
	s := t.s
	s.mu.Lock()
	t.dormancy = called
	over := t.aborted.Load() && !t.arriving
	if !over && !t.arriving {
		// Under the lock: a session that ends has all tasks aborted before it
		// waits for its workers.
		s.workers.submit(op{t: t, call: awakeOp})
	}
	s.mu.Unlock()
	if over {
		t.finish(scsi.StatusGood)
	}
}

// arrived ends the reader's part in a task that waits for its turn.
func (t *task) arrived() {
	t.s.mu.Lock()
	t.arriving = false
	late := t.dormancy == called
	t.s.mu.Unlock()
	if late {
		t.Enable()
	}
}

// awakeOp goes on with a task whose turn has come: with the data that it has, and
// that which it is to ask for.
func awakeOp(o op) {
	t := o.t
	next := t.cmd.Again()
	t.s.mu.Lock()
	t.cmd = next // under the lock: who waits for a unit's tasks looks at it
	t.dormancy = enabled
	if bad(t.cmd.Status) {
		t.fail(t.cmd.Status)
	}
	held := t.out.held
	t.out.held = nil
	write := t.worthWriting(held)
	if write {
		t.calls++
	}
	t.s.mu.Unlock()
	if write {
		t.s.workers.submit(held.op())
	} else if held != nil {
		held.buf.free()
	}
	if t.finish(scsi.StatusGood) {
		t.proceed(false)
		return
	}
	t.solicitNext()
}
