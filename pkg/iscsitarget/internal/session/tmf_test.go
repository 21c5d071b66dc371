package session

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// manageTask sends a function and returns its tag.
func (r *rig) manageTask(f uint8, lun [8]byte, ref uint32) uint32 {
	r.Helper()
	itt := r.ITT()
	r.Send(pdu.TaskManagement{Immediate: true, Function: f, LUN: lun, ITT: itt, RefTaskTag: ref, CmdSN: r.CmdSN, ExpStatSN: r.ExpStatSN}.Header(), nil)
	return itt
}

// answered takes PDUs until the function's answer comes and returns it.
func (r *rig) answered(itt uint32) uint8 {
	r.Helper()
	p := r.Expect(pdu.OpTaskManagementResponse)
	if p.BHS.ITT() != itt {
		r.Fatalf("an answer to %#x, want %#x", p.BHS.ITT(), itt)
	}
	return pdu.ParseTaskManagementResponse(&p.BHS).Response
}

// silent fails the test if anything but the answer to a ping comes.
func (r *rig) silent() {
	r.Helper()
	before := len(r.Unasked)
	r.Alive()
	if len(r.Unasked) != before {
		r.Fatalf("opcode %#02x came", byte(r.Unasked[before].BHS.Opcode()))
	}
}

func (r *rig) manages(want uint8, f uint8, lun [8]byte, ref uint32) {
	r.Helper()
	if got := r.answered(r.manageTask(f, lun, ref)); got != want {
		r.Fatalf("function %d answered %d, want %d", f, got, want)
	}
}

// write1 starts a write of one block whose data comes along.
func (r *rig) write1(lba int, seed byte) uint32 {
	return r.Start(iscsitest.Command{CDB: iscsitest.Write(lba, 1), Out: pattern(seed, block), Immediate: iscsitest.Most})
}

func TestAbortOfNothing(t *testing.T) {
	r := newSite(t).join(usual())
	r.manages(pdu.TMFTaskDoesNotExist, pdu.AbortTask, iscsitest.LUN(0), 0xdead)
	r.manages(pdu.TMFLUNDoesNotExist, pdu.AbortTask, iscsitest.LUN(1), 0xdead)
	r.manages(pdu.TMFLUNDoesNotExist, pdu.LogicalUnitReset, iscsitest.LUN(9), 0)
	r.manages(pdu.TMFComplete, pdu.AbortTaskSet, iscsitest.LUN(0), 0)
	r.manages(pdu.TMFComplete, pdu.ClearTaskSet, iscsitest.LUN(0), 0)
	for f := range uint8(128) {
		if !functions[f].in(r.s) {
			r.manages(pdu.TMFNotSupported, f, iscsitest.LUN(0), 0)
		}
	}
	r.Alive()
}

// A command that was lost, or waits for its turn behind one, is aborted by its
// number: it counts as received, and what comes behind it has its turn.
func TestAbortOfACommandThatHasNotCome(t *testing.T) {
	p := usual()
	p.HeaderDigest, p.DataDigest = true, true
	r := newSite(t).join(p)
	first := r.CmdSN
	lost := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}, r.ITT())
	r.damage(lost.Header(), pattern(1, block), 0)
	r.rejected(lost.Header(), pattern(1, block))
	r.CmdSN++
	held := r.write1(1, 2)
	behind := r.write1(2, 3)
	r.silent()
	abort := func(tag, cmdSN, own uint32) uint8 {
		itt := r.ITT()
		r.Send(pdu.TaskManagement{Immediate: true, Function: pdu.AbortTask, ITT: itt, RefTaskTag: tag, RefCmdSN: cmdSN, CmdSN: own}.Header(), nil)
		return r.answered(itt)
	}
	for name, tt := range map[string]struct{ tag, cmdSN, own uint32 }{
		"a number beyond the function's":   {0xdead, r.CmdSN, r.CmdSN},
		"a number before the window":       {0xdead, first - 1, r.CmdSN},
		"a number beyond the window":       {0xdead, first + 2*QueueDepth, first + 3*QueueDepth},
		"a number of another that is held": {0xdead, first + 1, r.CmdSN},
	} {
		if got := abort(tt.tag, tt.cmdSN, tt.own); got != pdu.TMFTaskDoesNotExist {
			t.Errorf("%s: answered %d", name, got)
		}
	}
	if got := abort(held, first+1, r.CmdSN); got != pdu.TMFComplete {
		t.Errorf("a command that is held: answered %d", got)
	}
	r.silent()
	if got := abort(lost.ITT, first, r.CmdSN); got != pdu.TMFComplete {
		t.Errorf("a command that was lost: answered %d", got)
	}
	good(t, r.Wait(behind))
	r.Send(lost.Header(), pattern(1, block)) // too late
	r.silent()
	r.holds(0, make([]byte, 2*block))
	r.holds(2, pattern(3, block))
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	if exp, most := r.s.window.advertised(); exp != r.CmdSN || most != r.CmdSN+QueueDepth-1 {
		t.Errorf("the window is %d..%d, the next number %d", exp, most, r.CmdSN)
	}
}

// A task that waits for data is aborted at once; its data, which may be on its
// way, is dropped, and it gets no status.
func TestAbortOfATaskThatWaitsForData(t *testing.T) {
	r := newSite(t).join(usual())
	itt := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	ask := r.WaitR2T(itt)
	r.manages(pdu.TMFTaskDoesNotExist, pdu.AbortTask, [8]byte{0x40}, itt) // flat space LUN 0 is another field
	r.manages(pdu.TMFComplete, pdu.AbortTask, iscsitest.LUN(0), itt)
	r.Serve(ask)
	r.silent()
	r.holds(0, make([]byte, block))
	if _, most := r.s.window.advertised(); most != r.CmdSN+QueueDepth-1 {
		t.Errorf("the window did not open: %d", most)
	}
}

// A task that is in the device is aborted when its call returns, not before: an
// answer that came first would let the write land after it.
func TestAbortOfARunningTask(t *testing.T) {
	r := newSite(t).join(usual())
	hold := r.dev.Hold(iscsitest.WriteAt)
	itt := r.write1(0, 1)
	hold.Await(t)
	abort := r.manageTask(pdu.AbortTask, iscsitest.LUN(0), itt)
	r.silent()
	select {
	case <-r.s.Done():
		t.Fatal("the session ended")
	case <-time.After(20 * time.Millisecond):
	}
	r.silent()
	hold.Release()
	if got := r.answered(abort); got != pdu.TMFComplete {
		t.Errorf("answered %d", got)
	}
	r.silent()
}

// Tasks that wait for a worker or for memory are aborted while every worker is
// stuck in the device.
func TestAbortOfQueuedTasks(t *testing.T) {
	st := newSite(t)
	st.cfg.WriteBudget, st.cfg.SessionBudget = NewBudget(256<<10), 256<<10
	r := st.join(usual())
	hold := r.dev.Hold(iscsitest.WriteAt)
	var stuck []uint32
	for i := range WorkerLimit {
		stuck = append(stuck, r.write1(i, 1))
	}
	for range WorkerLimit {
		hold.Await(t)
	}
	queued := r.write1(100, 2)
	read := r.Start(iscsitest.Command{CDB: iscsitest.Read(0, 1), In: block})
	greedy := r.Start(iscsitest.Command{CDB: iscsitest.Write(200, 512), Out: pattern(3, 256<<10)})
	second := r.Start(iscsitest.Command{CDB: iscsitest.Write(200, 512), Out: pattern(3, 256<<10)})
	r.Alive()
	for _, itt := range []uint32{queued, second, read, greedy} {
		r.manages(pdu.TMFComplete, pdu.AbortTask, iscsitest.LUN(0), itt)
	}
	hold.Release()
	for _, itt := range stuck {
		good(t, r.Wait(itt))
	}
	r.silent()
	r.holds(100, make([]byte, block))
}

// LOGICAL UNIT RESET ends the tasks of all sessions and is answered when the
// last of them has; every nexus hears of it.
func TestLogicalUnitReset(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	hold := st.dev.Hold(iscsitest.WriteAt)
	a.write1(0, 1)
	b.write1(1, 2)
	hold.Await(t)
	hold.Await(t)
	waiting := b.Start(iscsitest.Command{CDB: iscsitest.Write(2, 1), Out: pattern(3, block), Hold: true})
	ask := b.WaitR2T(waiting)
	// LUN 0 in the flat space form is the same unit.
	reset := a.manageTask(pdu.LogicalUnitReset, [8]byte{0x40, 0}, 0)
	a.silent()
	b.silent()
	hold.Release()
	b.Serve(ask) // it does not know of the reset yet
	if got := a.answered(reset); got != pdu.TMFComplete {
		t.Errorf("answered %d", got)
	}
	a.silent()
	b.silent()
	for _, r := range []*rig{a, b} {
		if got := r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}); got.Status != scsi.CheckCondition || got.SenseCode()>>8 != 0x0629 {
			t.Errorf("no unit attention after the reset: %v", got)
		}
		good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	}
}

func TestTargetWarmReset(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	_, ask := b.owes(2, 3)
	reset := a.manageTask(pdu.TargetWarmReset, iscsitest.LUN(0), 0)
	a.silent()
	b.Serve(ask)
	if got := a.answered(reset); got != pdu.TMFComplete {
		t.Errorf("answered %d", got)
	}
	b.silent()
	if got := b.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}); got.SenseCode()>>8 != 0x0629 {
		t.Errorf("no unit attention after the reset: %v", got)
	}
}

// TARGET COLD RESET is answered, then every session ends.
func TestTargetColdReset(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	hold := st.dev.Hold(iscsitest.WriteAt)
	b.write1(0, 1)
	hold.Await(t)
	reset := a.manageTask(pdu.TargetColdReset, iscsitest.LUN(9), 0)
	a.silent()
	hold.Release()
	if got := a.answered(reset); got != pdu.TMFComplete {
		t.Errorf("answered %d", got)
	}
	a.ExpectClosed()
	b.ExpectClosed()
	good(t, st.join(usual()).Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
}

// ABORT TASK SET leaves the tasks of others alone.
func TestAbortTaskSet(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	_, owed := a.owes(0, 1)
	theirs := b.Start(iscsitest.Command{CDB: iscsitest.Write(1, 1), Out: pattern(2, block), Hold: true})
	ask := b.WaitR2T(theirs)
	abort := a.manageTask(pdu.AbortTaskSet, iscsitest.LUN(0), 0)
	a.silent()
	a.Serve(owed)
	if got := a.answered(abort); got != pdu.TMFComplete {
		t.Errorf("answered %d", got)
	}
	b.Serve(ask)
	good(t, b.Wait(theirs))
	b.holds(0, make([]byte, block))
	b.holds(1, pattern(2, block))
}

// A WRITE SAME of a gigabyte ends between two steps.
func TestAbortOfALongCommand(t *testing.T) {
	r := newSite(t).join(usual())
	hold := r.dev.Hold(iscsitest.WriteAt)
	itt := r.Start(iscsitest.Command{CDB: iscsitest.WriteSame(0, 0), Out: pattern(1, block), Immediate: iscsitest.Most})
	hold.Await(t)
	abort := r.manageTask(pdu.AbortTask, iscsitest.LUN(0), itt)
	r.silent()
	hold.Release()
	if got := r.answered(abort); got != pdu.TMFComplete {
		t.Errorf("answered %d", got)
	}
	tail := make([]byte, block)
	if _, err := r.dev.Device.ReadAt(tail, 64<<20-block); err != nil || !slices.Equal(tail, make([]byte, block)) {
		t.Error("the command went on to its end")
	}
}

// Functions that wait are bounded, however many are sent.
func TestManagementStorm(t *testing.T) {
	r := newSite(t).join(usual())
	hold := r.dev.Hold(iscsitest.WriteAt)
	itt := r.write1(0, 1)
	hold.Await(t)
	for range managementDepth {
		r.manageTask(pdu.AbortTask, iscsitest.LUN(0), itt)
	}
	for range 1000 {
		r.manageTask(pdu.AbortTaskSet, iscsitest.LUN(0), 0)
		if p := r.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != pdu.RejectImmediate {
			t.Fatalf("reason %#02x", pdu.ParseReject(&p.BHS).Reason)
		}
	}
	hold.Release()
	for range managementDepth {
		r.Expect(pdu.OpTaskManagementResponse)
	}
	r.manages(pdu.TMFComplete, pdu.AbortTaskSet, iscsitest.LUN(0), 0)
}

// AbortTasks returns when the tasks have ended, or when nobody waits any more: two
// sessions that preempt each other must not wait for ever.
func TestAbortTasks(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	hold := st.dev.Hold(iscsitest.WriteAt)
	a.write1(0, 1)
	hold.Await(t)
	theirs := b.Start(iscsitest.Command{CDB: iscsitest.Write(1, 1), Out: pattern(2, block), Hold: true})
	ask := b.WaitR2T(theirs)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	AbortTasks(gone, []*Session{a.s}, st.unit)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		AbortTasks(context.Background(), []*Session{a.s}, st.unit)
	}()
	select {
	case <-ended:
		t.Error("the write is in the device still")
	case <-time.After(20 * time.Millisecond):
	}
	hold.Release()
	<-ended
	a.silent()
	b.Serve(ask)
	good(t, b.Wait(theirs))
	AbortTasks(context.Background(), nil, st.unit)
}
