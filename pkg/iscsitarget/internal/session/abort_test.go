package session

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// fast is usual with FastAbort, level2 with iSCSIProtocolLevel 2.
func fast() text.Params {
	p := usual()
	p.TaskReporting = text.FastAbort
	return p
}

func level2() text.Params {
	p := usual()
	p.ProtocolLevel = 2
	return p
}

// completes takes the answer to a function.
func (r *rig) completes(itt uint32) {
	r.Helper()
	if got := r.answered(itt); got != pdu.TMFComplete {
		r.Fatalf("answered %d", got)
	}
}

// A function that aborts many tasks waits for the data that R2Ts have asked for, of
// its own initiator and of others; nothing of it is written, nothing more is asked
// for (RFC 7143 section 4.2.3.3, step a).
func TestMultiTaskAbortWaitsForData(t *testing.T) {
	for _, f := range []uint8{pdu.ClearTaskSet, pdu.LogicalUnitReset, pdu.TargetWarmReset} {
		st := newSite(t)
		p := usual()
		p.MaxOutstandingR2T = 2
		a, b := st.join(p), st.join(usual())
		long := a.Start(iscsitest.Command{CDB: iscsitest.Write(0, 8192), Out: pattern(1, 4<<20), Hold: true})
		first, second := a.WaitR2T(long), a.WaitR2T(long)
		_, theirs := b.owes(9000, 2)
		abort := a.manageTask(f, iscsitest.LUN(0), 0)
		a.silent()
		a.Serve(first)
		a.silent()
		b.Serve(theirs)
		a.silent()
		b.silent()
		// The last sequence may be cut short by the F bit.
		a.Send(pdu.DataOut{Final: true, ITT: long, TTT: second.TTT, BufferOffset: second.Offset}.Header(), nil)
		a.completes(abort)
		a.silent()
		b.silent()
		st.holds(0, make([]byte, 4096))
		st.holds(9000, make([]byte, block))
	}
}

// An aborted task asks for no data any more, not even with an R2T that has yet to go.
func TestAbortTakesR2TBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		r := newSite(t).joinOver(server, client, usual())
		ping := func() uint32 {
			itt := r.ITT()
			r.Send(pdu.NopOut{Immediate: true, ITT: itt, TTT: pdu.NoTag, CmdSN: r.CmdSN, ExpStatSN: r.ExpStatSN}.Header(), nil)
			synctest.Wait()
			return itt
		}
		first := ping() // until its answer is taken nothing else goes
		write := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
		abort := r.manageTask(pdu.AbortTask, iscsitest.LUN(0), write)
		for _, want := range []uint32{first, abort, ping()} {
			if p := r.Recv(); p.BHS.ITT() != want {
				t.Fatalf("% x", p.BHS[:])
			}
		}
	})
}

// An initiator that sends none of that data is not waited for for ever, and what it
// sends too late is ignored.
func TestMultiTaskAbortGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		r := newSite(t).joinOver(server, client, usual())
		_, ask := r.owes(0, 1)
		start := time.Now()
		r.manages(pdu.TMFComplete, pdu.LogicalUnitReset, iscsitest.LUN(0), 0)
		if took := time.Since(start); took != drainLimit {
			t.Errorf("took %v", took)
		}
		r.Serve(ask)
		r.silent()
		r.holds(0, make([]byte, block))
	})
}

// With FastAbort no data is waited for, and what still comes is ignored. Others with
// FastAbort hear by an Asynchronous Message which logical unit's tasks are gone,
// before the answer; others without it do not (RFC 7143 section 4.2.3.4).
func TestFastAbort(t *testing.T) {
	st := newSite(t)
	a, b, c, idle := st.join(fast()), st.join(fast()), st.join(usual()), st.join(fast())
	_, mine := a.owes(0, 1)
	_, theirs := b.owes(1, 2)
	_, slow := c.owes(2, 3)
	abort := a.manageTask(pdu.LogicalUnitReset, iscsitest.LUN(0), 0)
	a.silent()
	c.Serve(slow)
	a.completes(abort)
	p := b.Expect(pdu.OpAsync)
	want := pdu.AsyncMessage{Event: pdu.AsyncTasksAborted, LUN: iscsitest.LUN(0)}
	if got := pdu.ParseAsyncMessage(&p.BHS); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	b.Send(pdu.NopOut{Immediate: true, LUN: iscsitest.LUN(0), ITT: pdu.NoTag, TTT: pdu.NoTag, CmdSN: b.CmdSN, ExpStatSN: b.ExpStatSN}.Header(), nil)
	a.Serve(mine)
	b.Serve(theirs)
	for _, r := range []*rig{a, b, c, idle} {
		r.silent()
	}
	st.holds(0, make([]byte, 3*block))
}

// A function for many tasks waits for the commands that were sent before it (RFC
// 7143 section 4.2.3.3, step b); one that is not urgent has its turn behind them
// anyway.
func TestMultiTaskAbortWaitsForCommands(t *testing.T) {
	r := newSite(t).join(usual())
	late := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}, r.ITT())
	r.CmdSN++
	held := r.writes1(0, 1, 2)
	abort := r.manageTask(pdu.AbortTaskSet, iscsitest.LUN(0), 0)
	second := r.manageTask(pdu.ClearTaskSet, iscsitest.LUN(0), 0)
	r.silent()
	r.Send(late.Header(), pattern(1, block))
	for _, itt := range []uint32{abort, second} {
		p := r.Recv()
		for p.BHS.Opcode() == pdu.OpSCSIResponse { // that was faster
			p = r.Recv()
		}
		if p.BHS.Opcode() != pdu.OpTaskManagementResponse || p.BHS.ITT() != itt {
			t.Fatalf("% x", p.BHS[:])
		}
	}
	r.silent()
	r.manages(pdu.TMFTaskDoesNotExist, pdu.AbortTask, iscsitest.LUN(0), held)
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
}

// A reset of the target waits for no command: those that are missing count as
// received, and are ignored if they come (RFC 7143 section 4.2.3.3).
func TestTargetResetPlugsMissingCommands(t *testing.T) {
	r := newSite(t).join(usual())
	late := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}, r.ITT())
	r.CmdSN++
	r.Start(iscsitest.Command{CDB: iscsitest.Write(1, 1), Out: pattern(2, block), Hold: true})
	r.CmdSN++ // another one is missing
	r.completes(r.manageTask(pdu.TargetWarmReset, iscsitest.LUN(0), 0))
	r.Send(late.Header(), pattern(1, block))
	r.silent()
	r.holds(0, make([]byte, 2*block))
	expect(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x062903)
	if exp, most := r.s.window.advertised(); exp != r.CmdSN || most != r.CmdSN+QueueDepth-1 {
		t.Errorf("the window is %d..%d, the next number %d", exp, most, r.CmdSN)
	}
}

// Functions that wait for commands are bounded as others are.
func TestFunctionsThatWaitForCommands(t *testing.T) {
	r := newSite(t).join(usual())
	r.CmdSN++
	for range managementDepth {
		r.manageTask(pdu.AbortTaskSet, iscsitest.LUN(0), 0)
	}
	r.manageTask(pdu.AbortTaskSet, iscsitest.LUN(0), 0)
	if p := r.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != pdu.RejectImmediate {
		t.Errorf("reason %#02x", pdu.ParseReject(&p.BHS).Reason)
	}
	h := pdu.NopOut{ITT: r.ITT(), TTT: pdu.NoTag, CmdSN: r.CmdSN - 1}.Header()
	r.Send(h, nil)
	r.Expect(pdu.OpNopIn)
	for range managementDepth {
		r.Expect(pdu.OpTaskManagementResponse)
	}
	r.silent()
}

// ABORT TASK finds an immediate command by its tag: its RefCmdSN is that of the
// function.
func TestAbortOfAnImmediateCommand(t *testing.T) {
	r := newSite(t).join(usual())
	itt := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true, Urgent: true})
	ask := r.WaitR2T(itt)
	abort := r.ITT()
	r.Send(pdu.TaskManagement{Immediate: true, Function: pdu.AbortTask, LUN: iscsitest.LUN(0), ITT: abort, RefTaskTag: itt, RefCmdSN: r.CmdSN, CmdSN: r.CmdSN}.Header(), nil)
	r.completes(abort)
	r.Serve(ask)
	r.silent()
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.immediate != 0 {
		t.Errorf("%d immediate commands are under way", r.s.immediate)
	}
}

// TASK REASSIGN is refused below error recovery level 2 (RFC 7143 section 11.6.1).
func TestFunctionsThatAreRefused(t *testing.T) {
	r := newSite(t).join(level2())
	r.manages(pdu.TMFNoReassignment, pdu.TaskReassign, iscsitest.LUN(0), 0x10)
	r.manages(pdu.TMFNoReassignment, pdu.TaskReassign, iscsitest.LUN(9), 0x10)
	r.manages(pdu.TMFNotSupported, 13, iscsitest.LUN(0), 0)
	r.manages(pdu.TMFNotSupported, 0, iscsitest.LUN(0), 0)
}

// What RFC 7144 adds needs iSCSIProtocolLevel 2.
func TestFunctionsOfLevel2(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(level2())
	for _, f := range []uint8{pdu.QueryTask, pdu.QueryTaskSet, pdu.ITNexusReset, pdu.QueryAsyncEvent} {
		a.manages(pdu.TMFNotSupported, f, iscsitest.LUN(0), 0)
	}
	for _, f := range []uint8{pdu.QueryTask, pdu.QueryTaskSet, pdu.QueryAsyncEvent} {
		b.manages(pdu.TMFLUNDoesNotExist, f, iscsitest.LUN(9), 0)
	}
	a.owes(0, 1)
	b.manages(pdu.TMFComplete, pdu.QueryTaskSet, iscsitest.LUN(0), 0) // that is another nexus's
	b.manages(pdu.TMFComplete, pdu.QueryTask, iscsitest.LUN(0), 0xdead)
	itt, ask := b.owes(1, 2)
	b.manages(pdu.TMFSucceeded, pdu.QueryTask, iscsitest.LUN(0), itt)
	b.manages(pdu.TMFSucceeded, pdu.QueryTaskSet, iscsitest.LUN(0), 0)
	b.Serve(ask)
	good(t, b.Wait(itt))
	b.manages(pdu.TMFComplete, pdu.QueryTask, iscsitest.LUN(0), itt)
	b.manages(pdu.TMFComplete, pdu.QueryTaskSet, iscsitest.LUN(0), 0)
}

// QUERY ASYNCHRONOUS EVENT tells the next unit attention, and leaves it.
func TestQueryAsyncEvent(t *testing.T) {
	r := newSite(t).join(level2())
	query := func() pdu.TaskManagementResponse {
		r.manageTask(pdu.QueryAsyncEvent, iscsitest.LUN(0), 0)
		p := r.Expect(pdu.OpTaskManagementResponse)
		got := pdu.ParseTaskManagementResponse(&p.BHS)
		got.ITT = 0
		return got
	}
	if got := query(); got != (pdu.TaskManagementResponse{Response: pdu.TMFComplete}) {
		t.Errorf("nothing is pending: %+v", got)
	}
	r.unit.CapacityChanged()
	want := pdu.TaskManagementResponse{Response: pdu.TMFSucceeded, Additional: [3]byte{0x16, 0x2a, 0x09}}
	for range 2 {
		if got := query(); got != want {
			t.Errorf("one is pending: %+v", got)
		}
	}
	r.unit.Reset()
	want.Additional = [3]byte{0x26, 0x29, 0x03}
	if got := query(); got != want {
		t.Errorf("two are pending: %+v", got)
	}
}

// I_T NEXUS RESET ends what the nexus has under way and reserved, and the session
// goes on (SAM-5 section 7.6).
func TestNexusReset(t *testing.T) {
	st := newSite(t)
	a, b := st.join(level2()), st.join(usual())
	good(t, a.Do(iscsitest.Command{CDB: []byte{0x16, 0, 0, 0, 0, 0}}))
	_, ask := a.owes(0, 1)
	expect(t, b.Do(iscsitest.Command{CDB: iscsitest.Read(1, 1), In: block}), scsi.ReservationConflict, 0)
	reset := a.manageTask(pdu.ITNexusReset, iscsitest.LUN(9), 0)
	a.silent()
	a.Serve(ask)
	a.completes(reset)
	st.holds(0, make([]byte, block))
	good(t, b.Do(iscsitest.Command{CDB: iscsitest.Read(1, 1), In: block}))
	expect(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x062907)
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	good(t, b.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
}

// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS tells what the session answers.
func TestReportedFunctions(t *testing.T) {
	st := newSite(t)
	for _, tt := range []struct {
		params text.Params
		want   [2]byte
	}{{usual(), [2]byte{0xf8, 0}}, {level2(), [2]byte{0xfc, 0x07}}} {
		r := st.join(tt.params)
		res := r.Do(iscsitest.Command{CDB: []byte{0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0}, In: 4})
		good(t, res)
		if [2]byte(res.Data) != tt.want {
			t.Errorf("level %d: %x, want %x", tt.params.ProtocolLevel, res.Data, tt.want)
		}
	}
}

// A command may have a priority (RFC 7144); nothing is made of it.
func TestCommandPriority(t *testing.T) {
	r := newSite(t).join(level2())
	h := r.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady()}, r.ITT()).Header()
	h[2] = 0xff
	r.CmdSN++
	r.Send(h, nil)
	if p := r.Expect(pdu.OpSCSIResponse); pdu.ParseSCSIResponse(&p.BHS).Status != scsi.Good {
		t.Error("refused")
	}
}
