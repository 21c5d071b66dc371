package session

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// several is usual, with room for more connections.
func several() text.Params {
	p := usual()
	p.MaxConnections = 4
	return p
}

// another adds a connection to the session of r.
func (r *rig) another(cid uint16) *rig {
	r.Helper()
	server, client := tcpPair(r)
	p := r.s.Params
	other := r.connect(r.s, server, client, cid, p)
	other.Joins(r.Client)
	other.Join(seen(p))
	other.serve()
	return other
}

// lost has the connection break, and waits until the session has no more to do
// with it.
func (r *rig) lost() {
	r.Helper()
	_ = r.Close()
	select {
	case <-r.c.gone:
	case <-time.After(iscsitest.Timeout):
		r.Fatal("the connection has not gone")
	}
}

func (r *rig) keepsNothingEarly() {
	r.Helper()
	r.s.order.Lock()
	defer r.s.order.Unlock()
	if r.s.earlyBytes != 0 || len(r.s.early) != 0 {
		r.Errorf("%d bytes of %d requests are kept", r.s.earlyBytes, len(r.s.early))
	}
}

// The connections of a session take its commands in turn, and each answers those
// that came over it.
func TestCommandsOverSeveralConnections(t *testing.T) {
	a := newSite(t).join(several())
	all := []*rig{a, a.another(8), a.another(9)}
	for i := range 60 {
		c := all[i%len(all)]
		good(t, c.Do(iscsitest.Command{CDB: iscsitest.Write(i, 1), Out: pattern(byte(i), block), Immediate: i % 2 * block}))
		a.holds(i, pattern(byte(i), block))
	}
	for _, c := range all {
		c.Alive()
		if len(c.Unasked) > 0 {
			t.Errorf("connection %d got %d PDUs of others", c.CID, len(c.Unasked))
		}
	}
	if got := len(a.s.Connections()); got != len(all) {
		t.Errorf("%d connections", got)
	}
}

// A command that overtakes others, on another connection, waits for them, with the
// unsolicited data that comes behind it.
func TestCommandOvertakesOnAnotherConnection(t *testing.T) {
	p := several()
	p.FirstBurstLength = 64 << 10
	a := newSite(t).join(p)
	b := a.another(8)
	const n = 48 << 10
	var tags []uint32
	first := a.CmdSN
	for i := range 3 {
		a.CmdSN = first + 1 + uint32(i)
		tags = append(tags, b.Start(iscsitest.Command{CDB: iscsitest.Write(i*n/block, n/block), Out: pattern(byte(i), n), Immediate: 16 << 10, Unsolicited: iscsitest.Most}))
	}
	b.silent()
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady(), CmdSN: &first}))
	for i, itt := range tags {
		got := b.Wait(itt)
		good(t, got)
		if len(got.R2Ts) > 0 {
			t.Errorf("asked for data that had come")
		}
		a.holds(i*n/block, pattern(byte(i), n))
	}
	a.keepsNothingEarly()
}

// The turn of a command may come, by another connection's reader, while its own
// reader takes in the data behind it.
func TestTurnComesAmongTheData(t *testing.T) {
	p := several()
	p.FirstBurstLength, p.MaxRecvDataSegmentLength = 32<<10, 4096
	a := newSite(t).join(p)
	b := a.another(8)
	const n = 32 << 10
	for round := range 300 {
		h := a.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady()}, a.ITT())
		before := a.Encode(h.Header(), nil)
		a.CmdSN++
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := a.SendRaw(before); err != nil {
				t.Error(err)
			}
		})
		got := b.Do(iscsitest.Command{CDB: iscsitest.Write(0, n/block), Out: pattern(byte(round), n), Immediate: round % 2 * 4096, Unsolicited: iscsitest.Most})
		wg.Wait()
		good(t, got)
		if len(got.R2Ts) > 0 {
			t.Fatalf("round %d: asked for data that had come", round)
		}
		a.holds(0, pattern(byte(round), n))
		a.Expect(pdu.OpSCSIResponse)
	}
	a.keepsNothingEarly()
}

// The data that comes behind a command that there was no room for is dropped, and the
// command ends when all of it has come.
func TestStarvedCommandEnds(t *testing.T) {
	a := newSite(t).join(several())
	b := a.another(8)
	const n = 256 << 10
	first := a.CmdSN
	var tags []uint32
	for i := range 12 {
		a.CmdSN = first + 1 + uint32(i)
		tags = append(tags, b.Start(iscsitest.Command{CDB: iscsitest.Write(i*n/block, n/block), Out: pattern(byte(i), n), Immediate: 4096, Unsolicited: iscsitest.Most}))
	}
	b.Alive() // all of it has been taken in
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady(), CmdSN: &first}))
	full := 0
	for i, itt := range tags {
		switch got := b.Wait(itt); got.Status {
		case scsi.Good:
			a.holds(i*n/block, pattern(byte(i), n))
		case scsi.TaskSetFull:
			full++
			a.holds(i*n/block, make([]byte, n))
		default:
			t.Errorf("command %d: %v", i, got)
		}
	}
	if full == 0 || full == len(tags) {
		t.Errorf("%d of %d commands found no room", full, len(tags))
	}
	a.keepsNothingEarly()
}

// Data-Out over another connection than the command's is none of it.
func TestDataOutOverAnotherConnection(t *testing.T) {
	a := newSite(t).join(several())
	b := a.another(8)
	itt := a.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	ask := a.WaitR2T(itt)
	b.Send(pdu.DataOut{Final: true, ITT: itt, TTT: ask.TTT}.Header(), pattern(2, block))
	b.Alive()
	a.Serve(ask)
	good(t, a.Wait(itt))
	a.holds(0, pattern(1, block))
}

// A connection that breaks takes its commands with it, those that wait for their
// turn too; the session goes on, and the initiator is told (RFC 7143 section
// 11.14.5).
func TestConnectionBreaks(t *testing.T) {
	a := newSite(t).join(several())
	b := a.another(8)
	b.WaitR2T(b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true}))
	hold := a.dev.Hold(iscsitest.WriteAt)
	b.Start(iscsitest.Command{CDB: iscsitest.Write(1, 1), Out: pattern(2, block), Immediate: block})
	hold.Await(t)
	gap := a.CmdSN
	a.CmdSN++
	b.Start(iscsitest.Command{CDB: iscsitest.Write(2, 1), Out: pattern(3, block), Immediate: block})
	b.Alive()
	_ = b.Close()
	select {
	case <-b.c.gone:
		t.Error("the connection has gone, but its write is under way")
	case <-time.After(50 * time.Millisecond):
	}
	hold.Release()
	b.lost()
	expect(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady(), CmdSN: &gap}), scsi.CheckCondition, 0x06477F)
	gap++ // the initiator fills this one, too
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady(), CmdSN: &gap}))
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	a.holds(0, make([]byte, block))
	a.holds(2, make([]byte, block))
	a.keepsNothingEarly()
	a.Alive() // the reader is done with the command before
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if len(a.s.tasks)+len(a.s.bursts) != 0 {
		t.Errorf("left: %d tasks, %d bursts", len(a.s.tasks), len(a.s.bursts))
	}
}

// A connection may be logged out over itself or over another one; the session ends
// with its last.
func TestLogoutOfOneConnection(t *testing.T) {
	a := newSite(t).join(several())
	b, c := a.another(8), a.another(9)
	b.WaitR2T(b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true}))
	for _, leaving := range []*rig{b, c} {
		over := a
		if leaving == c {
			over = c
		}
		itt := over.logout(pdu.LogoutCloseConnection, leaving.CID)
		if p := over.Expect(pdu.OpLogoutResponse); pdu.ParseLogoutResponse(&p.BHS) != (pdu.LogoutResponse{ITT: itt}) {
			t.Fatalf("got %+v", pdu.ParseLogoutResponse(&p.BHS))
		}
		leaving.ExpectClosed()
		if err := <-leaving.ended; !errors.Is(err, ErrLogout) {
			t.Errorf("ended with %v", err)
		}
		a.Alive()
	}
	a.logout(pdu.LogoutCloseConnection, 9)
	if p := a.Expect(pdu.OpLogoutResponse); pdu.ParseLogoutResponse(&p.BHS).Response != logoutNoCID {
		t.Errorf("a connection that has gone was logged out: %+v", pdu.ParseLogoutResponse(&p.BHS))
	}
	expect(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x06477F)
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	a.logout(pdu.LogoutCloseConnection, a.CID)
	a.Expect(pdu.OpLogoutResponse)
	a.ExpectClosed()
	<-a.s.Done()
}

func TestLogoutOfSessionClosesAllConnections(t *testing.T) {
	a := newSite(t).join(several())
	b := a.another(8)
	a.logout(pdu.LogoutCloseSession, 0)
	a.Expect(pdu.OpLogoutResponse)
	a.ExpectClosed()
	b.ExpectClosed()
	for _, r := range []*rig{a, b} {
		if err := <-r.ended; !errors.Is(err, ErrLogout) {
			t.Errorf("ended with %v", err)
		}
	}
	<-a.s.Done()
}

// A connection that comes with the CID of another takes its place, once nothing of it
// is under way.
func TestConnectionReinstatement(t *testing.T) {
	a := newSite(t).join(several())
	b := a.another(8)
	b.WaitR2T(b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true}))
	again := a.another(8)
	b.ExpectClosed()
	expect(t, again.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x06477F)
	good(t, again.Do(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(2, block)}))
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))

	// One that does not go in time is not replaced.
	hold := a.dev.Hold(iscsitest.WriteAt)
	again.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(3, block), Immediate: block})
	hold.Await(t)
	server, client := tcpPair(t)
	defer client.Close()
	defer server.Close()
	if _, err := a.s.Connect(server, pdu.NewReader(server, 8192, 1020), 8, a.s.Params, 1, time.Millisecond); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	hold.Release()
}

func TestConnectionsAreBounded(t *testing.T) {
	a := newSite(t).join(several())
	for cid := range uint16(3) {
		a.another(cid + 20)
	}
	server, client := tcpPair(t)
	defer client.Close()
	defer server.Close()
	if _, err := a.s.Connect(server, pdu.NewReader(server, 8192, 1020), 30, a.s.Params, 1, time.Second); !errors.Is(err, ErrTooManyConnections) {
		t.Errorf("got %v", err)
	}
	a.s.Close()
	<-a.s.Done()
	if _, err := a.s.Connect(server, pdu.NewReader(server, 8192, 1020), 30, a.s.Params, 1, time.Second); !errors.Is(err, ErrOver) {
		t.Errorf("got %v", err)
	}
}

// A function ends the tasks of all connections of a session.
func TestFunctionsReachAllConnections(t *testing.T) {
	a := newSite(t).join(several())
	b := a.another(8)
	abort := func(function uint8) (itt uint32) {
		itt = b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
		b.WaitR2T(itt)
		a.Send(pdu.TaskManagement{Immediate: true, Function: function, ITT: a.ITT(), RefTaskTag: itt, CmdSN: a.CmdSN, RefCmdSN: a.CmdSN - 1}.Header(), nil)
		if p := a.Expect(pdu.OpTaskManagementResponse); pdu.ParseTaskManagementResponse(&p.BHS).Response != pdu.TMFComplete {
			t.Errorf("function %d: response %d", function, pdu.ParseTaskManagementResponse(&p.BHS).Response)
		}
		return itt
	}
	for _, f := range []uint8{pdu.AbortTask, pdu.AbortTaskSet, pdu.ClearTaskSet} {
		itt := abort(f)
		b.Send(pdu.DataOut{Final: true, ITT: itt, TTT: 1}.Header(), pattern(1, block))
		b.Alive()
	}
	a.holds(0, make([]byte, block))
	good(t, b.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
}

// What is sent before Serve, the Login Response, waits for it: whoever has that may count
// on all that comes with a session.
func TestSentBeforeServe(t *testing.T) {
	st := newSite(t)
	server, client := tcpPair(t)
	s := st.join(several()).s
	r := st.connect(s, server, client, 8, several())
	r.c.Send(pdu.NopIn{ITT: 7, TTT: pdu.NoTag}.Header(), nil)
	_ = client.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := client.Read(make([]byte, pdu.BHSLen)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes came: %v", n, err)
	}
	_ = client.SetReadDeadline(time.Time{})
	r.serve()
	if p := r.Recv(); p.BHS.ITT() != 7 {
		t.Errorf("% x", p.BHS[:])
	}
}
