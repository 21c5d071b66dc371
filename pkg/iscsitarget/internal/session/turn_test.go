package session

import (
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

const (
	ordered     = uint8(scsi.Ordered)
	headOfQueue = uint8(scsi.HeadOfQueue)
)

// writes1 is write1 with a task attribute.
func (r *rig) writes1(attr uint8, lba int, seed byte) uint32 {
	return r.Start(iscsitest.Command{CDB: iscsitest.Write(lba, 1), Out: pattern(seed, block), Immediate: iscsitest.Most, Attr: attr})
}

// noCall fails the test if a call is at the gate when all PDUs before are handled.
func (r *rig) noCall(h *iscsitest.Hold) {
	r.Helper()
	r.silent()
	if h.Waiting() != 0 {
		r.Fatal("a task touched the medium before its turn")
	}
}

// An ORDERED task starts when all older ones have ended, of whatever session,
// and younger SIMPLE ones wait for it (SAM-5 sections 8.6.2 and 8.6.3).
func TestOrderedTask(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	first := st.dev.Hold(iscsitest.WriteAt)
	older := b.writes1(0, 0, 1)
	first.Await(t)
	middle := a.writes1(ordered, 0, 2)
	a.noCall(first) // it is there before the next one of the other session
	younger := b.writes1(0, 0, 3)
	read := a.Start(iscsitest.Command{CDB: iscsitest.Read(0, 1), In: block})
	a.noCall(first)
	b.noCall(first)
	second := st.dev.Hold(iscsitest.WriteAt)
	first.Release()
	second.Await(t)
	good(t, b.Wait(older))
	a.noCall(second)
	b.noCall(second)
	second.Release()
	good(t, a.Wait(middle))
	good(t, b.Wait(younger))
	good(t, a.Wait(read))
	st.holds(0, pattern(3, block))
}

// HEAD OF QUEUE goes before all that have not started, and those wait for it
// (SAM-5 section 8.6.4).
func TestHeadOfQueueTask(t *testing.T) {
	r := newSite(t).join(usual())
	stuck := r.dev.Hold(iscsitest.WriteAt)
	older := r.writes1(0, 0, 1)
	stuck.Await(t)
	waiting := r.writes1(ordered, 1, 2)
	r.noCall(stuck)
	head := r.writes1(headOfQueue, 2, 3)
	stuck.Await(t) // beside the one that has started
	simple := r.writes1(0, 3, 4)
	r.noCall(stuck)
	stuck.Release()
	for _, itt := range []uint32{older, head, waiting, simple} {
		good(t, r.Wait(itt))
	}
}

// A task at the head of the queue overtakes those that wait for a worker.
func TestHeadOfQueueOvertakes(t *testing.T) {
	r := newSite(t).join(usual())
	stuck := r.dev.Hold(iscsitest.WriteAt)
	for i := range WorkerLimit {
		r.writes1(0, i, 1)
	}
	for range WorkerLimit {
		stuck.Await(t)
	}
	simple := r.writes1(0, 100, 2)
	head := r.writes1(headOfQueue, 100, 3)
	r.noCall(stuck)
	r.s.workers.mu.Lock()
	first := r.s.workers.queue[0].t.itt
	r.s.workers.mu.Unlock()
	stuck.Release()
	good(t, r.Wait(head))
	good(t, r.Wait(simple))
	if first != head {
		t.Error("it waits behind a SIMPLE task")
	}
}

// What has no place in the command's field is rejected; ACA, without an ACA
// condition, is an invalid message (RFC 7143 section 11.3.1, SAM-5 section 8.6.5).
func TestTaskAttributeThatThereIsNot(t *testing.T) {
	r := newSite(t).join(usual())
	for attr := uint8(5); attr < 8; attr++ {
		h := r.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady(), Attr: attr}, r.ITT())
		r.CmdSN++
		r.Send(h.Header(), nil)
		if p := r.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != pdu.RejectInvalidField {
			t.Errorf("attribute %d: reason %#02x", attr, pdu.ParseReject(&p.BHS).Reason)
		}
	}
	expect(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady(), Attr: 4}), scsi.CheckCondition, 0x054900)
	untagged := r.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady()}, r.ITT())
	untagged.Attr = 0
	r.CmdSN++
	r.Send(untagged.Header(), nil)
	if p := r.Expect(pdu.OpSCSIResponse); pdu.ParseSCSIResponse(&p.BHS).Status != scsi.Good {
		t.Error("an untagged task failed")
	}
}

// Those behind a task have their turn when it is aborted: one that runs, one that
// waits for its turn, and one that waits for data.
func TestAbortLetsThoseBehindGoOn(t *testing.T) {
	r := newSite(t).join(usual())
	stuck := r.dev.Hold(iscsitest.WriteAt)
	running := r.writes1(0, 0, 1)
	stuck.Await(t)
	waiting := r.writes1(ordered, 1, 2)
	second := r.writes1(ordered, 2, 3)
	behind := r.writes1(0, 3, 4)
	r.noCall(stuck)
	r.manages(pdu.TMFComplete, pdu.AbortTask, iscsitest.LUN(0), waiting)
	r.noCall(stuck)
	abort := r.manageTask(pdu.AbortTask, iscsitest.LUN(0), running)
	r.noCall(stuck)
	stuck.Release()
	good(t, r.Wait(second))
	good(t, r.Wait(behind))
	r.completesAmong(abort)
	r.holds(1, make([]byte, block))
	data := r.Start(iscsitest.Command{CDB: iscsitest.Write(4, 1), Out: pattern(5, block), Hold: true})
	r.WaitR2T(data)
	behind = r.writes1(ordered, 5, 6)
	r.silent()
	abort = r.manageTask(pdu.AbortTask, iscsitest.LUN(0), data)
	good(t, r.Wait(behind))
	r.completesAmong(abort)
}

// completesAmong takes the answer to a function, which may have come while others
// were waited for.
func (r *rig) completesAmong(itt uint32) {
	r.Helper()
	for _, p := range r.Unasked {
		if p.BHS.ITT() == itt && pdu.ParseTaskManagementResponse(&p.BHS).Response == pdu.TMFComplete {
			return
		}
	}
	r.completes(itt)
}

// The end of a session lets the tasks of others go on, and a session ends while
// its tasks wait for others.
func TestSessionEndLetsOthersGoOn(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual())
	holder := a.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	a.WaitR2T(holder)
	a.writes1(ordered, 1, 2)
	a.silent()
	theirs := b.writes1(0, 2, 3)
	b.silent()
	a.s.Close()
	<-a.s.Done()
	good(t, b.Wait(theirs))
	st.holds(1, make([]byte, block))

	c := st.join(usual())
	holder = b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	ask := b.WaitR2T(holder)
	c.writes1(ordered, 1, 2)
	c.silent()
	c.s.Close()
	<-c.s.Done()
	b.Serve(ask)
	good(t, b.Wait(holder))
	st.holds(1, make([]byte, block))
}

// A dormant task takes what comes unasked, and asks for the rest in its turn.
func TestDormantTaskCollectsData(t *testing.T) {
	r := newSite(t).join(usual())
	stuck := r.dev.Hold(iscsitest.WriteAt)
	older := r.writes1(0, 0, 1)
	stuck.Await(t)
	data := pattern(2, 400<<10)
	long := r.Start(iscsitest.Command{CDB: iscsitest.Write(8, len(data)/block), Out: data, Immediate: 4096, Unsolicited: iscsitest.Most, Attr: ordered})
	r.noCall(stuck)
	list := r.Start(iscsitest.Command{CDB: iscsitest.WriteSame(2000, 1), Out: pattern(3, block)}) // its list is to be asked for
	r.noCall(stuck)
	stuck.Release()
	good(t, r.Wait(older))
	good(t, r.Wait(long))
	good(t, r.Wait(list))
	r.holds(8, data)
	r.holds(2000, pattern(3, block))
}

// Tasks that wait for their turn leave room for the data of those before them.
func TestDormantTasksLeaveMemory(t *testing.T) {
	st := newSite(t)
	st.cfg.WriteBudget, st.cfg.SessionBudget = NewBudget(1<<20), 1<<20
	r := st.join(usual())
	first := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	ask := r.WaitR2T(first)
	data := pattern(2, 256<<10)
	var waiting []uint32
	for i := range 8 {
		waiting = append(waiting, r.Start(iscsitest.Command{
			CDB: iscsitest.Write(512*(i+1), 512), Out: data, Immediate: iscsitest.Most, Unsolicited: iscsitest.Most, Attr: ordered,
		}))
	}
	r.silent()
	r.Serve(ask)
	good(t, r.Wait(first))
	full := 0
	for _, itt := range waiting {
		if r.Wait(itt).Status == scsi.TaskSetFull {
			full++
		}
	}
	if full == 0 || full == len(waiting) {
		t.Errorf("%d of %d found no memory", full, len(waiting))
	}
}

// What a task's turn finds is what counts, not what its arrival found: a
// reservation that an ORDERED task before it made holds it back.
func TestTurnSeesWhatCameBefore(t *testing.T) {
	st := newSite(t)
	a, b := st.join(usual()), st.join(usual(), func(i *Info) { i.Initiator = "iqn.other" })
	stuck := st.dev.Hold(iscsitest.WriteAt)
	older := a.writes1(0, 0, 1)
	stuck.Await(t)
	reserve := a.Start(iscsitest.Command{CDB: []byte{0x16, 0, 0, 0, 0, 0}, Attr: ordered})
	a.silent()
	theirs := b.writes1(0, 1, 2)
	capacity := b.Start(iscsitest.Command{CDB: make([]byte, 6)})
	b.silent()
	stuck.Release()
	good(t, a.Wait(older))
	good(t, a.Wait(reserve))
	expect(t, b.Wait(theirs), scsi.ReservationConflict, 0)
	expect(t, b.Wait(capacity), scsi.ReservationConflict, 0)
	st.holds(1, make([]byte, block))
}

// Who waits for the tasks of a unit may look at a task just when its turn comes.
func TestAwaitTasksWhileTurnsCome(t *testing.T) {
	r := newSite(t).join(usual())
	var removal sync.WaitGroup
	defer removal.Wait()
	over := make(chan struct{})
	defer close(over)
	removal.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
				AwaitTasks(r.Peers(), new(scsi.Unit))
			}
		}
	})
	for range 50 {
		older := r.writes1(ordered, 0, 1)
		younger := r.writes1(ordered, 0, 2)
		good(t, r.Wait(older))
		good(t, r.Wait(younger))
	}
}
