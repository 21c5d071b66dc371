package session

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// recover logs a connection out for recovery over another one.
func (r *rig) recover(cid uint16, want uint8) {
	r.Helper()
	r.logout(pdu.LogoutForRecovery, cid)
	p := r.Until(pdu.OpLogoutResponse)
	if got := pdu.ParseLogoutResponse(&p.BHS); got.Response != want || want == logoutClosed && got.Time2Retain != uint16(r.s.Params.DefaultTime2Retain) {
		r.Fatalf("got %+v, want response %d", got, want)
	}
}

// reassign asks for a task of a lost connection, and returns the answer.
func (r *rig) reassign(itt, expDataSN uint32) uint8 {
	r.Helper()
	r.Send(pdu.TaskManagement{Immediate: true, Function: pdu.TaskReassign, ITT: r.ITT(), RefTaskTag: itt, CmdSN: r.CmdSN, ExpStatSN: r.ExpStatSN, ExpDataSN: expDataSN}.Header(), nil)
	p := r.Until(pdu.OpTaskManagementResponse)
	return pdu.ParseTaskManagementResponse(&p.BHS).Response
}

// takes has a command of a lost connection go on over this one.
func (r *rig) takes(from *rig, itt uint32) {
	r.Helper()
	if got := r.reassign(itt, r.TakeOver(from.Client, itt)); got != pdu.TMFComplete {
		r.Fatalf("TASK REASSIGN of %#x: response %d", itt, got)
	}
}

// A read goes on over another connection: one that waits for the device, one that
// has sent some of its data, and one whose status was lost.
func TestReadIsReassigned(t *testing.T) {
	p := level(2)
	p.MaxSendDataSegmentLength, p.MaxBurstLength = 8192, 64<<10
	a := newSite(t).join(p)
	want := pattern(1, 1<<20)
	a.fill(0, want)
	b := a.another(8)
	read := iscsitest.Command{CDB: iscsitest.Read(0, len(want)/block), In: uint32(len(want))}

	ended := b.Start(read)
	good(t, b.Wait(ended))
	lost := b.Start(read)
	for b.c.outbox.answered(lost) == nil { // its status is on the way, and b does not take it
		a.Alive()
	}
	hold := a.dev.Hold(iscsitest.ReadAt)
	stuck := b.Start(read)
	hold.Await(t)
	b.lost()
	a.recover(8, logoutClosed)
	a.takes(b, lost)
	got := a.Wait(lost)
	good(t, got)
	if !bytes.Equal(got.Data, want) {
		t.Error("other data")
	}
	a.takes(b, stuck)
	hold.Release()
	if got = a.Wait(stuck); !bytes.Equal(got.Data, want) {
		t.Errorf("other data: %v", got)
	}
	if got := a.reassign(ended, 0); got != pdu.TMFTaskDoesNotExist {
		t.Errorf("a task that has ended: response %d", got)
	}
	a.Alive()
}

// A write goes on over another connection with the data that has come.
func TestWriteIsReassigned(t *testing.T) {
	const n = 64 << 10
	for _, unsolicited := range []bool{false, true} {
		p := level(2)
		p.MaxRecvDataSegmentLength, p.FirstBurstLength, p.MaxBurstLength = 8192, 32<<10, 32<<10
		a := newSite(t).join(p)
		b := a.another(8)
		want := pattern(1, n)
		itt := b.Start(iscsitest.Command{CDB: iscsitest.Write(0, n/block), Out: want, Hold: true, Immediate: 8192})
		from := 8192
		ttt := uint32(pdu.NoTag)
		if unsolicited {
			b.lost() // with a command that was to be followed by data
			b = a.another(9)
			h := b.Header(iscsitest.Command{CDB: iscsitest.Write(0, n/block), Out: want}, b.ITT())
			h.Final = false
			b.CmdSN++
			b.Send(h.Header(), want[:8192])
			b.Send(pdu.DataOut{ITT: h.ITT, TTT: ttt, DataSN: 0, BufferOffset: uint32(from)}.Header(), want[from:from+8192])
			b.Alive()
			b.lost()
			a.recover(9, logoutClosed)
			if got := a.reassign(h.ITT, 0); got != pdu.TMFComplete {
				t.Fatalf("response %d", got)
			}
			for at := 16 << 10; at < n; {
				ask := pdu.ParseR2T(&[]pdu.PDU{a.Expect(pdu.OpR2T)}[0].BHS)
				if int(ask.Offset) != at {
					t.Fatalf("asks for %+v, %d bytes have come", ask, at)
				}
				for sn := uint32(0); ask.Length > 0; sn++ {
					m := min(8192, ask.Length)
					a.Send(pdu.DataOut{Final: m == ask.Length, ITT: h.ITT, TTT: ask.TTT, DataSN: sn, BufferOffset: ask.Offset}.Header(), want[ask.Offset:ask.Offset+m])
					ask.Offset, ask.Length, at = ask.Offset+m, ask.Length-m, at+int(m)
				}
			}
			a.Expect(pdu.OpSCSIResponse)
			a.holds(0, want)
			continue
		}
		ask := b.WaitR2T(itt)
		b.Send(pdu.DataOut{ITT: itt, TTT: ask.TTT, BufferOffset: ask.Offset}.Header(), want[ask.Offset:ask.Offset+8192])
		b.Alive()
		b.lost()
		a.recover(8, logoutClosed)
		sn := a.TakeOver(b.Client, itt)
		if got := a.reassign(itt, sn); got != pdu.TMFComplete {
			t.Fatalf("response %d", got)
		}
		again := a.WaitR2T(itt)
		if again.R2TSN != 1 || again.Offset != ask.Offset+8192 || again.TTT == ask.TTT {
			t.Errorf("%+v, then %+v", ask, again)
		}
		a.Serve(again)
		a.Serve(a.WaitR2T(itt))
		good(t, a.Wait(itt))
		a.holds(0, want)
	}
}

// What may not be reassigned is not.
func TestReassignRefused(t *testing.T) {
	a := newSite(t).join(level(2))
	b := a.another(8)
	itt := b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	b.WaitR2T(itt)
	if got := a.reassign(itt, 1); got != pdu.TMFStillAllegiant {
		t.Errorf("while its connection is there: response %d", got)
	}
	b.lost()
	if got := a.reassign(itt, 1); got != pdu.TMFStillAllegiant {
		t.Errorf("before the logout: response %d", got)
	}
	a.recover(9, logoutNoCID)
	a.recover(8, logoutClosed)
	if got := a.reassign(itt, 2); got != pdu.TMFRejected {
		t.Errorf("from a number that was never sent: response %d", got)
	}
	if got := a.reassign(itt+1, 0); got != pdu.TMFTaskDoesNotExist {
		t.Errorf("a task that is none: response %d", got)
	}
	a.Send(pdu.TaskManagement{Immediate: true, Function: pdu.TaskReassign, LUN: iscsitest.LUN(3), ITT: a.ITT(), RefTaskTag: itt, CmdSN: a.CmdSN, ExpDataSN: 1}.Header(), nil)
	p := a.Expect(pdu.OpTaskManagementResponse)
	if got := pdu.ParseTaskManagementResponse(&p.BHS).Response; got != pdu.TMFTaskDoesNotExist {
		t.Errorf("of another LUN: response %d", got)
	}
	a.takes(b, itt)
	a.Serve(a.WaitR2T(itt))
	good(t, a.Wait(itt))

	low := newSite(t).join(level(1))
	low.recover(low.CID, logoutNoRecovery)
	if got := low.reassign(1, 0); got != pdu.TMFNoReassignment {
		t.Errorf("at level 1: response %d", got)
	}
}

// A session outlives its only connection. The next one takes the place of the lost
// one, with its CID or by a logout for recovery.
func TestSessionOutlivesItsConnection(t *testing.T) {
	for _, cid := range []uint16{7, 20} {
		a := newSite(t).join(level(2))
		want := pattern(byte(cid), 4096)
		itt := a.Start(iscsitest.Command{CDB: iscsitest.Write(0, 8), Out: want, Hold: true})
		a.WaitR2T(itt)
		a.lost()
		b := a.another(cid)
		if cid != 7 {
			b.recover(7, logoutClosed)
		}
		b.takes(a, itt)
		b.Serve(b.WaitR2T(itt))
		good(t, b.Wait(itt))
		b.holds(0, want)
		select {
		case <-a.s.Done():
			t.Error("the session has ended")
		default:
		}
		b.logout(pdu.LogoutCloseSession, 0)
		b.Expect(pdu.OpLogoutResponse)
		<-a.s.Done()
	}
}

// A connection may be logged out for recovery over itself.
func TestLogoutForRecoveryOfItself(t *testing.T) {
	a := newSite(t).join(level(2))
	b := a.another(8)
	itt := b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	b.WaitR2T(itt)
	b.recover(8, logoutClosed)
	a.takes(b, itt)
	b.ExpectClosed()
	a.Serve(a.WaitR2T(itt))
	good(t, a.Wait(itt))
}

// What nobody takes over in time ends, as the initiator is told; a session that has
// no connection any more ends, too.
func TestTimeToRetain(t *testing.T) {
	p := level(2)
	p.DefaultTime2Wait, p.DefaultTime2Retain = 0, 1
	a := newSite(t).join(p)
	b := a.another(8)
	itt := b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	b.WaitR2T(itt)
	b.lost()
	if err := <-b.ended; err == nil { // when its time is over
		t.Error("the connection ended well")
	}
	expect(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x06477F)
	a.recover(8, logoutNoCID)
	if got := a.reassign(itt, 1); got != pdu.TMFTaskDoesNotExist {
		t.Errorf("response %d", got)
	}
	a.lost()
	select {
	case <-a.s.Done():
	case <-time.After(iscsitest.Timeout):
		t.Error("the session goes on")
	}
}

// A connection that is lost may be given up.
func TestLostConnectionIsClosed(t *testing.T) {
	a := newSite(t).join(level(2))
	b := a.another(8)
	b.WaitR2T(b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true}))
	b.lost()
	a.logout(pdu.LogoutCloseConnection, 8)
	p := a.Expect(pdu.OpLogoutResponse)
	if got := pdu.ParseLogoutResponse(&p.BHS); got.Response != logoutClosed {
		t.Errorf("%+v", got)
	}
	if err := <-b.ended; err == nil {
		t.Error("the connection ended well")
	}
	expect(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x06477F)
}

// Who closes a session does not wait for those that might recover it.
func TestClosedSessionIsNotRecovered(t *testing.T) {
	a := newSite(t).join(level(2))
	b := a.another(8)
	b.WaitR2T(b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true}))
	b.lost()
	a.lost()
	a.s.Close()
	select {
	case <-a.s.Done():
	case <-time.After(iscsitest.Timeout / 2):
		t.Fatal("the session goes on")
	}
	server, client := tcpPair(t)
	defer client.Close()
	defer server.Close()
	if _, err := a.s.Connect(server, pdu.NewReader(server, 8192, 1020), 9, a.s.Params, 1, time.Second); !errors.Is(err, ErrOver) {
		t.Errorf("got %v", err)
	}
}

// The commands of a lost connection keep no memory from those of others.
func TestLostReadsLeaveMemory(t *testing.T) {
	st := newSite(t)
	a := st.join(level(2))
	want := pattern(1, 1<<20)
	st.fill(0, want)
	b := a.another(8)
	b.MuteACKs, b.MutePings = true, true
	read := iscsitest.Command{CDB: iscsitest.Read(0, len(want)/block), In: uint32(len(want))}
	var tags []uint32
	for range 40 {
		tags = append(tags, b.Start(read))
	}
	for a.ExpCmdSN != a.CmdSN { // all of them have come
		a.Alive()
	}
	b.lost()
	for range 20 {
		good(t, a.Do(iscsitest.Command{CDB: iscsitest.Write(4096, 1), Out: pattern(2, block), Immediate: block}))
	}
	a.recover(8, logoutClosed)
	for _, itt := range tags {
		a.takes(b, itt)
	}
	for _, itt := range tags {
		got := a.Wait(itt)
		good(t, got)
		if !bytes.Equal(got.Data, want) {
			t.Fatal("other data")
		}
	}
}

// Whenever connections break, every command ends once, with its data.
func TestRecoveryAtAnyTime(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	p := level(2)
	p.MaxRecvDataSegmentLength, p.MaxSendDataSegmentLength, p.FirstBurstLength, p.MaxBurstLength = 8192, 8192, 16<<10, 32<<10
	a := newSite(t).join(p)
	const area, n = 96 << 10, 8
	model := make([]byte, n*area)
	for round := range 60 {
		var writes, reads [n]uint32
		for i := range n {
			want := pattern(byte(round*n+i), area)
			if random.IntN(2) == 0 {
				copy(model[i*area:], want)
				writes[i] = a.Start(iscsitest.Command{CDB: iscsitest.Write(i*area/block, area/block), Out: want, Immediate: random.IntN(2) * iscsitest.Most, Unsolicited: random.IntN(2) * iscsitest.Most})
			} else {
				reads[i] = a.Start(iscsitest.Command{CDB: iscsitest.Read(i*area/block, area/block), In: area})
			}
		}
		for range random.IntN(40) { // as much as comes before the connection breaks
			if len(a.Running()) == 0 {
				break
			}
			if err := a.Step(); err != nil {
				t.Fatal(err)
			}
		}
		_ = a.Close()
		b := a.another(a.CID)
		for i := range n {
			for _, itt := range []uint32{writes[i], reads[i]} {
				if itt == 0 {
					continue
				}
				if !a.Ended(itt) {
					sn := b.TakeOver(a.Client, itt)
					switch got := b.reassign(itt, sn); got {
					case pdu.TMFComplete:
					case pdu.TMFTaskDoesNotExist: // it never came: the initiator sends it again
						b.Again(itt)
					default:
						t.Fatalf("round %d: response %d", round, got)
					}
				} else {
					b.TakeOver(a.Client, itt)
				}
				got := b.Wait(itt)
				good(t, got)
				if itt == reads[i] && !bytes.Equal(got.Data, model[i*area:(i+1)*area]) {
					t.Fatalf("round %d: read %d got other data", round, i)
				}
			}
		}
		a = b
	}
	a.holds(0, model)
}
