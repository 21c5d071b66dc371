package session

import (
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

const aca = uint8(scsi.ACA)

// naca sets NACA in a CDB.
func naca(cdb []byte) []byte {
	cdb[len(cdb)-1] |= 4
	return cdb
}

// faults has a command fail with NACA set.
func (r *rig) faults() {
	r.Helper()
	expect(r, r.Do(iscsitest.Command{CDB: naca([]byte{0x01, 0, 0, 0, 0, 0})}), scsi.CheckCondition, 0x052000)
}

// ready runs a command that changes nothing, as a task with an attribute, and fails
// the test unless its status is that.
func (r *rig) ready(status byte, attr uint8, cdb ...byte) {
	r.Helper()
	if len(cdb) == 0 {
		cdb = iscsitest.TestUnitReady()
	}
	expect(r, r.Do(iscsitest.Command{CDB: cdb, Attr: attr}), status, 0)
}

const simple = uint8(scsi.Simple)

// A command with NACA that fails holds up what all nexuses have waiting; its own one
// mends what there is to mend, and lets them go on (SAM-5 section 5.10).
func TestACA(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	stuck := st.dev.Hold(iscsitest.WriteAt)
	running := b.writes1(0, 0, 1)
	stuck.Await(t)
	mine := a.writes1(ordered, 1, 2)
	a.silent()
	theirs := b.writes1(0, 2, 3)
	b.silent()
	a.faults()
	stuck.Release()
	good(t, b.Wait(running)) // it had its turn before
	a.ready(scsi.ACAActive, simple)
	a.ready(scsi.ACAActive, headOfQueue)
	b.ready(scsi.Busy, simple)
	b.ready(scsi.ACAActive, simple, naca(iscsitest.TestUnitReady())...)
	b.ready(scsi.ACAActive, aca)
	expect(t, b.Do(iscsitest.Command{CDB: iscsitest.Write(3, 1), Out: pattern(4, block)}), scsi.Busy, 0)
	a.silent()
	b.silent()
	st.holds(1, make([]byte, 2*block))
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.Write(8, 1), Out: pattern(5, block), Attr: aca}))
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.Read(8, 1), In: block, Attr: aca}))
	b.manages(pdu.TMFComplete, pdu.ClearACA, iscsitest.LUN(0), 0) // it has none to clear
	a.manages(pdu.TMFLUNDoesNotExist, pdu.ClearACA, iscsitest.LUN(9), 0)
	a.ready(scsi.ACAActive, simple)
	clears := a.manageTask(pdu.ClearACA, iscsitest.LUN(0), 0)
	good(t, a.Wait(mine))
	good(t, b.Wait(theirs))
	a.completesAmong(clears)
	a.ready(scsi.Good, simple)
	b.ready(scsi.Good, simple)
	st.holds(1, append(pattern(2, block), pattern(3, block)...))
	a.manages(pdu.TMFComplete, pdu.ClearACA, iscsitest.LUN(0), 0)
}

// A task with the ACA attribute that fails clears the condition, or has it stand with
// NACA set. Any CHECK CONDITION counts: of the CDB, of the data, of a unit attention.
func TestACATaskFails(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.faults()
	expect(t, a.Do(iscsitest.Command{CDB: naca([]byte{0x01, 0, 0, 0, 0, 0}), Attr: aca}), scsi.CheckCondition, 0x052000)
	a.ready(scsi.ACAActive, simple)
	expect(t, a.Do(iscsitest.Command{CDB: []byte{0x01, 0, 0, 0, 0, 0}, Attr: aca}), scsi.CheckCondition, 0x052000)
	a.ready(scsi.Good, simple)
	short := iscsitest.Command{CDB: naca([]byte{0x15, 0x10, 0, 0, 16, 0}), Out: make([]byte, 8)}
	if got := a.Do(short); got.Status != scsi.CheckCondition {
		t.Errorf("a list that is too short: %v", got)
	}
	b.ready(scsi.Busy, simple)
	miscompares := iscsitest.Command{CDB: []byte{0x2f, 2, 0, 0, 0, 0, 0, 0, 1, 0}, Out: pattern(1, block), Attr: aca}
	if got := a.Do(miscompares); got.SenseCode()>>16 != 0x0e {
		t.Errorf("%v", got)
	}
	b.ready(scsi.Good, simple)
	st.unit.CapacityChanged()
	expect(t, b.Do(iscsitest.Command{CDB: naca(iscsitest.TestUnitReady())}), scsi.CheckCondition, 0x062a09)
	a.ready(scsi.Busy, simple) // and keeps its own for later
	b.manages(pdu.TMFComplete, pdu.ClearACA, iscsitest.LUN(0), 0)
	expect(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x062a09)
}

// What ends otherwise than with CHECK CONDITION establishes nothing.
func TestNoACA(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual(), func(i *Info) { i.Initiator = "iqn.other" })
	a.fails()
	a.ready(scsi.Good, simple, naca(iscsitest.TestUnitReady())...)
	a.ready(scsi.Good, simple, 0x16, 0, 0, 0, 0, 0)
	b.ready(scsi.ReservationConflict, simple, naca(iscsitest.TestUnitReady())...)
	a.ready(scsi.Good, simple, 0x17, 0, 0, 0, 0, 0)
	// A task that is aborted while it fails has no status.
	stuck := st.dev.Hold(iscsitest.ReadAt)
	compare := a.Start(iscsitest.Command{CDB: naca([]byte{0x89, 15: 0, 13: 1}), Out: pattern(1, 2*block), Immediate: iscsitest.Most})
	stuck.Await(t)
	abort := a.manageTask(pdu.AbortTask, iscsitest.LUN(0), compare)
	a.silent()
	stuck.Release()
	a.completes(abort)
	a.ready(scsi.Good, simple)
	b.ready(scsi.Good, simple)
}

// Of tasks with the ACA attribute there is one at a time. It goes before those that
// wait for a worker, and CLEAR ACA aborts it, in the device too.
func TestClearACAAbortsTheTask(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	stuck := st.dev.Hold(iscsitest.WriteAt)
	var before []uint32
	for i := range WorkerLimit + 1 {
		before = append(before, a.writes1(0, i, 1))
	}
	for range WorkerLimit {
		stuck.Await(t)
	}
	a.faults()
	first := a.writes1(aca, 100, 2)
	a.ready(scsi.ACAActive, aca)
	a.s.workers.mu.Lock()
	urgent := a.s.workers.queue[0].t.itt
	a.s.workers.mu.Unlock()
	if urgent != first {
		t.Error("it waits behind a SIMPLE task")
	}
	stuck.Release()
	for _, itt := range append(before, first) {
		good(t, a.Wait(itt))
	}
	stuck = st.dev.Hold(iscsitest.WriteAt)
	second := a.writes1(aca, 101, 3)
	stuck.Await(t)
	clears := a.manageTask(pdu.ClearACA, iscsitest.LUN(0), 0)
	a.silent()
	b.ready(scsi.Busy, simple)
	stuck.Release()
	a.completes(clears)
	a.silent()
	a.manages(pdu.TMFTaskDoesNotExist, pdu.AbortTask, iscsitest.LUN(0), second)
	b.ready(scsi.Good, simple)
}

// CLEAR ACA has what was sent before it find the condition, though it is immediate.
func TestClearACAWaitsForCommands(t *testing.T) {
	r := newSite(t).join(usual())
	r.faults()
	late := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}, r.ITT())
	r.CmdSN++
	clears := r.manageTask(pdu.ClearACA, iscsitest.LUN(0), 0)
	r.silent()
	r.Send(late.Header(), pattern(1, block))
	for range 2 {
		switch p := r.Recv(); {
		case p.BHS.Opcode() == pdu.OpSCSIResponse && pdu.ParseSCSIResponse(&p.BHS).Status == scsi.ACAActive:
		case p.BHS.ITT() == clears && pdu.ParseTaskManagementResponse(&p.BHS).Response == pdu.TMFComplete:
		default:
			t.Errorf("% x", p.BHS)
		}
	}
	r.ready(scsi.Good, simple)
	r.holds(0, make([]byte, block))
}

// Functions that abort tasks leave the condition; a reset of the unit clears it, also
// another initiator's, and so does the loss of the nexus that has it.
func TestFunctionsAndACA(t *testing.T) {
	for _, tt := range []struct {
		name   string
		by     byte
		f      uint8
		clears bool
	}{
		{"ABORT TASK SET", 'a', pdu.AbortTaskSet, false},
		{"CLEAR TASK SET", 'b', pdu.ClearTaskSet, false},
		{"LOGICAL UNIT RESET", 'b', pdu.LogicalUnitReset, true},
		{"TARGET WARM RESET", 'b', pdu.TargetWarmReset, true},
		{"I_T NEXUS RESET", 'a', pdu.ITNexusReset, true},
		{"I_T NEXUS RESET", 'b', pdu.ITNexusReset, false},
	} {
		st := newSite(t)
		rigs := map[byte]*rig{'a': st.join(level2()), 'b': st.join(level2()), 'c': st.join(usual())}
		rigs['a'].faults()
		rigs[tt.by].manages(pdu.TMFComplete, tt.f, iscsitest.LUN(0), 0)
		got := rigs['c'].Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()})
		if (got.Status == scsi.Busy) == tt.clears {
			t.Errorf("%s by %c: %v", tt.name, tt.by, got)
		}
	}
}

// Whoever vanishes while its ACA condition stands holds nobody up, whatever it has
// in the device still.
func TestACAOfANexusThatVanishes(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	stuck := st.dev.Hold(iscsitest.WriteAt)
	older := b.writes1(0, 0, 1)
	stuck.Await(t)
	a.writes1(0, 1, 1)
	stuck.Await(t)
	a.faults()
	b.ready(scsi.Busy, simple)
	_ = a.Client.Close()
	for deadline := time.Now().Add(iscsitest.Timeout); b.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}).Status == scsi.Busy; {
		if time.Now().After(deadline) {
			t.Fatal("the condition outlives its nexus")
		}
	}
	stuck.Release()
	good(t, b.Wait(older))
	<-a.s.Done()

	c := st.join(usual())
	stuck = st.dev.Hold(iscsitest.WriteAt)
	older = b.writes1(0, 0, 1)
	stuck.Await(t)
	theirs := b.writes1(ordered, 2, 3)
	b.silent()
	c.faults()
	stuck.Release()
	good(t, b.Wait(older))
	b.silent()
	c.s.Close()
	good(t, b.Wait(theirs))
	<-c.s.Done()
}

// A session with tasks that an ACA condition holds up ends, and leaves the others.
func TestHeldUpSessionEnds(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	stuck := st.dev.Hold(iscsitest.WriteAt)
	a.writes1(0, 0, 1)
	stuck.Await(t)
	b.writes1(ordered, 1, 2)
	b.silent()
	mine := a.writes1(ordered, 2, 3)
	a.silent()
	a.faults()
	b.s.Close()
	<-b.s.Done()
	stuck.Release()
	a.ready(scsi.ACAActive, simple)
	clears := a.manageTask(pdu.ClearACA, iscsitest.LUN(0), 0)
	good(t, a.Wait(mine))
	a.completesAmong(clears)
	st.holds(1, make([]byte, block))
}

// QERR 11b aborts the tasks of the nexus that fails; those of others wait until its
// ACA condition is cleared (SAM-5 section 5.10.2), as all do with 00b (TestACA).
func TestACAWithQueueErrorOfNexus(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(0, 3*qerr, 0)
	b.settled()
	stuck := st.dev.Hold(iscsitest.WriteAt)
	older := b.writes1(0, 0, 1)
	stuck.Await(t)
	mine := a.writes1(ordered, 1, 2)
	a.silent()
	theirs := b.writes1(0, 2, 3)
	b.silent()
	a.faults()
	a.manages(pdu.TMFTaskDoesNotExist, pdu.AbortTask, iscsitest.LUN(0), mine)
	stuck.Release()
	good(t, b.Wait(older))
	b.silent()
	a.manages(pdu.TMFComplete, pdu.ClearACA, iscsitest.LUN(0), 0)
	good(t, b.Wait(theirs))
	st.holds(1, append(make([]byte, block), pattern(3, block)...))
}

// QERR 01b aborts all. The condition stands while they are waited for, though the
// fault is not told yet: nobody's command slips in between.
func TestACAWithQueueErrorOfAll(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(0, qerr, tas)
	b.settled()
	stuck := st.dev.Hold(iscsitest.WriteAt)
	older := b.writes1(0, 0, 1)
	stuck.Await(t)
	mine := a.writes1(ordered, 1, 2)
	a.silent()
	theirs := b.writes1(0, 2, 3)
	b.silent()
	failed := a.Start(iscsitest.Command{CDB: naca([]byte{0x01, 0, 0, 0, 0, 0})})
	a.silent()
	b.ready(scsi.Busy, simple)
	stuck.Release()
	expect(t, a.Wait(failed), scsi.CheckCondition, 0x052000)
	expect(t, b.Wait(older), scsi.TaskAborted, 0)
	expect(t, b.Wait(theirs), scsi.TaskAborted, 0)
	a.manages(pdu.TMFTaskDoesNotExist, pdu.AbortTask, iscsitest.LUN(0), mine)
	a.ready(scsi.ACAActive, simple)
	a.manages(pdu.TMFComplete, pdu.ClearACA, iscsitest.LUN(0), 0)
	b.ready(scsi.Good, simple)
	st.holds(1, make([]byte, 2*block))
}

// Where each nexus has its own task set an ACA condition is its own, too (TST 001b).
func TestACAOfEachNexus(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	a.selects(tst, 0, 0)
	b.settled()
	a.faults()
	a.ready(scsi.ACAActive, simple)
	b.ready(scsi.Good, simple, naca(iscsitest.TestUnitReady())...)
	b.faults()
	b.ready(scsi.ACAActive, simple)
	a.manages(pdu.TMFComplete, pdu.ClearACA, iscsitest.LUN(0), 0)
	a.ready(scsi.Good, simple)
	b.ready(scsi.ACAActive, simple)
	b.ready(scsi.Good, aca)
}

// Faults of two initiators at once, each cleared by its own, leave nobody behind.
func TestACAOfBothAtOnce(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	for range 100 {
		var both sync.WaitGroup
		for _, r := range []*rig{a, b} {
			both.Go(func() {
				all := []uint32{
					r.writes1(ordered, 1, 2),
					r.Start(iscsitest.Command{CDB: naca(iscsitest.Read(1<<20, 1)), In: block}),
					r.writes1(ordered, 2, 2),
				}
				if r.Wait(all[1]).Status == scsi.CheckCondition {
					r.Wait(r.Start(iscsitest.Command{CDB: iscsitest.TestUnitReady(), Attr: aca}))
					r.manageTask(pdu.ClearACA, iscsitest.LUN(0), 0)
				}
				r.Wait(all[0])
				r.Wait(all[2])
				r.silentBut(pdu.OpTaskManagementResponse)
			})
		}
		both.Wait()
		a.ready(scsi.Good, simple)
		b.ready(scsi.Good, simple)
	}
}

// silentBut fails the test if anything but such a PDU has come unasked.
func (r *rig) silentBut(op pdu.Opcode) {
	r.Helper()
	r.Alive()
	for _, p := range r.Unasked {
		if p.BHS.Opcode() != op {
			r.Errorf("opcode %#02x came", byte(p.BHS.Opcode()))
		}
	}
	r.Unasked = nil
}
