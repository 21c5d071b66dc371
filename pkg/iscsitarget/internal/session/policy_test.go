package session

import (
	"context"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// Bits of the control mode page.
const (
	tst  = 0x20 // byte 2: TST 001b
	qerr = 0x02 // byte 3: QERR 01b
	tas  = 0x40 // byte 5
)

// selects sets bytes 2, 3 and 5 of the control mode page; queue algorithm
// modifier 1 is there already.
func (r *rig) selects(two, three, five byte) {
	r.Helper()
	list := make([]byte, 16)
	copy(list[4:], []byte{0x0a, 0x0a, two, 0x10 | three, 0, five})
	good(r, r.Do(iscsitest.Command{CDB: []byte{0x15, 0x10, 0, 0, 16, 0}, Out: list, Immediate: iscsitest.Most}))
}

// settled takes the unit attention of a mode page that changed.
func (r *rig) settled() {
	r.Helper()
	expect(r, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x062a01)
}

// owes starts a write that waits for its data.
func (r *rig) owes(lba int, seed byte) (uint32, pdu.R2T) {
	r.Helper()
	itt := r.Start(iscsitest.Command{CDB: iscsitest.Write(lba, 1), Out: pattern(seed, block), Hold: true})
	return itt, r.WaitR2T(itt)
}

// fails runs a command that ends with CHECK CONDITION.
func (r *rig) fails() {
	r.Helper()
	expect(r, r.Do(iscsitest.Command{CDB: []byte{0xff, 0, 0, 0, 0, 0}}), scsi.CheckCondition, 0x052000)
}

// With TAS zero a nexus whose tasks another one has cleared gets no status, and
// COMMANDS CLEARED BY ANOTHER INITIATOR; one that lost none hears nothing.
func TestClearTaskSetWithoutTAS(t *testing.T) {
	st := newSite(t)
	a, b, c := st.join(fast()), st.join(fast()), st.join(fast())
	a.owes(0, 1)
	b.owes(1, 2)
	a.manages(pdu.TMFComplete, pdu.ClearTaskSet, iscsitest.LUN(0), 0) // FastAbort: no data is waited for
	b.Expect(pdu.OpAsync)
	a.silent()
	b.silent()
	expect(t, b.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x062f00)
	for _, r := range []*rig{a, b, c} {
		good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	}
}

// With TAS set the tasks of others end with TASK ABORTED, and there is no unit
// attention; one's own get no status.
func TestClearTaskSetWithTAS(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(0, 0, tas)
	b.settled()
	stuck := st.dev.Hold(iscsitest.WriteAt)
	running := b.writes1(0, 0, 1)
	stuck.Await(t)
	waiting := b.writes1(ordered, 1, 2)
	b.silent()
	a.writes1(ordered, 2, 3)
	a.silent()
	clearing := a.manageTask(pdu.ClearTaskSet, iscsitest.LUN(0), 0)
	expect(t, b.Wait(waiting), scsi.TaskAborted, 0)
	a.silent()
	stuck.Release()
	if got := a.answered(clearing); got != pdu.TMFComplete {
		t.Errorf("answered %d", got)
	}
	expect(t, b.Wait(running), scsi.TaskAborted, 0)
	for _, r := range []*rig{a, b} {
		r.silent()
		good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	}
	st.holds(1, make([]byte, 2*block))
}

// A reset has a unit attention of its own, and TASK ABORTED for the tasks of
// others where TAS is set.
func TestResetWithTAS(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(0, 0, tas)
	b.settled()
	theirs, ask := b.owes(1, 2)
	reset := a.manageTask(pdu.LogicalUnitReset, iscsitest.LUN(0), 0)
	a.silent()
	b.silent()
	b.Serve(ask)
	expect(t, b.Wait(theirs), scsi.TaskAborted, 0)
	if got := a.answered(reset); got != pdu.TMFComplete {
		t.Errorf("answered %d", got)
	}
	st.holds(1, make([]byte, block))
	for _, r := range []*rig{a, b} {
		expect(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x062903)
		good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	}
	if st.unit.TaskPolicy().TaskAborted {
		t.Error("TAS was not saved, and is there after a reset")
	}
}

// Where each nexus has its own task set, CLEAR TASK SET is about that alone, and
// an ORDERED task waits for nobody else (TST 001b, SPC-4 section 7.5.8).
func TestTaskSetOfEachNexus(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(tst, 0, 0)
	b.settled()
	theirs, ask := b.owes(0, 1)
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.Write(1, 1), Out: pattern(2, block), Attr: ordered}))
	a.manages(pdu.TMFComplete, pdu.ClearTaskSet, iscsitest.LUN(0), 0)
	b.Serve(ask)
	good(t, b.Wait(theirs))
}

// PREEMPT AND ABORT (SPC-4 section 5.13.11.2.5) tells as CLEAR TASK SET does.
func TestAbortTasksTells(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.owes(0, 1)
	AbortTasks(context.Background(), []*Session{a.s}, st.unit)
	a.silent()
	expect(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x062f00)
	b.selects(0, 0, tas)
	a.settled()
	mine, _ := a.owes(0, 1)
	AbortTasks(context.Background(), []*Session{a.s}, st.unit)
	expect(t, a.Wait(mine), scsi.TaskAborted, 0)
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
}

// QERR 00b: a task that fails leaves the others alone.
func TestQueueErrorKeepsTasks(t *testing.T) {
	r := newSite(t).join(usual())
	other, ask := r.owes(0, 1)
	r.fails()
	r.Serve(ask)
	good(t, r.Wait(other))
}

// QERR 01b: a task that fails takes the whole task set with it. Its status comes
// when the others have ended: what their initiators send again then must not be
// overtaken by what was aborted.
func TestQueueErrorAbortsTaskSet(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(0, qerr, 0)
	b.settled()
	stuck := st.dev.Hold(iscsitest.WriteAt)
	a.writes1(0, 0, 1)
	stuck.Await(t)
	b.owes(2, 3)
	a.writes1(ordered, 1, 2)
	a.silent()
	b.writes1(0, 3, 4)
	b.silent()
	failed := a.Start(iscsitest.Command{CDB: []byte{0xff, 0, 0, 0, 0, 0}})
	a.silent()
	b.silent()
	stuck.Release()
	expect(t, a.Wait(failed), scsi.CheckCondition, 0x052000)
	a.silent()
	b.silent()
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	st.holds(1, make([]byte, 3*block))
	// A unit attention is a CHECK CONDITION, too.
	mine, _ := a.owes(4, 5)
	expect(t, b.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x062f00)
	expect(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x062f00)
	if r := a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}); r.Status != scsi.Good {
		t.Errorf("%v", r)
	}
	a.manages(pdu.TMFTaskDoesNotExist, pdu.AbortTask, iscsitest.LUN(0), mine)
	if _, most := a.s.window.advertised(); most != a.CmdSN+QueueDepth-1 {
		t.Errorf("the window did not open: %d", most)
	}
}

// QERR 11b: the tasks of other nexuses go on.
func TestQueueErrorAbortsOfNexus(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(0, 3*qerr, 0)
	b.settled()
	mine, _ := a.owes(0, 1)
	theirs, ask := b.owes(1, 2)
	a.fails()
	a.silent()
	a.manages(pdu.TMFTaskDoesNotExist, pdu.AbortTask, iscsitest.LUN(0), mine)
	b.Serve(ask)
	good(t, b.Wait(theirs))
}

// QERR 01b with TAS: the others are told by their status. With TST 001b the task
// set is the nexus's own.
func TestQueueErrorWithTASAndTST(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(0, qerr, tas)
	b.settled()
	theirs, _ := b.owes(1, 2)
	a.fails()
	expect(t, b.Wait(theirs), scsi.TaskAborted, 0)
	good(t, b.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	a.selects(tst, qerr, tas)
	b.settled()
	theirs, ask := b.owes(1, 2)
	a.fails()
	b.Serve(ask)
	good(t, b.Wait(theirs))
}

// Two tasks that fail at once do not wait for each other, and a session that ends
// waits for none of them.
func TestFaultsDoNotWaitForEachOther(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(0, qerr, tas)
	b.settled()
	for range 200 {
		x, y := a.Start(iscsitest.Command{CDB: []byte{0xff, 0, 0, 0, 0, 0}}), b.Start(iscsitest.Command{CDB: []byte{0xff, 0, 0, 0, 0, 0}})
		z := a.Start(iscsitest.Command{CDB: iscsitest.Read(1<<20, 1), In: block, Attr: ordered})
		for _, r := range []iscsitest.Result{a.Wait(x), b.Wait(y), a.Wait(z)} {
			if r.Status != scsi.CheckCondition && r.Status != scsi.TaskAborted {
				t.Fatal(r)
			}
		}
	}
	stuck := st.dev.Hold(iscsitest.WriteAt)
	b.writes1(0, 0, 1)
	stuck.Await(t)
	a.Start(iscsitest.Command{CDB: []byte{0xff, 0, 0, 0, 0, 0}})
	a.silent()
	a.s.Close()
	<-a.s.Done()
	stuck.Release()
}
