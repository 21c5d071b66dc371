package session

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// A command that was not acknowledged when its connection was lost, since others were
// to come before it, did not come: the initiator sends it again over another one.
func TestEarlyCommandOfALostConnectionComesAgain(t *testing.T) {
	for _, p := range []uint32{0, 2} {
		params := level(p)
		a := newSite(t).join(params)
		b := a.another(8)
		gap := a.CmdSN
		a.CmdSN++
		early := iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Immediate: block}
		sn := a.CmdSN
		b.Start(early)
		b.Alive()
		b.lost()
		good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady(), CmdSN: &gap}))
		early.CmdSN = &sn
		good(t, a.Do(early))
		a.holds(0, early.Out)
		a.keepsNothingEarly()
	}
}

// A task whose connection was lost while it waited for memory is asked for its data
// over the next one.
func TestWriteThatWaitsForMemoryIsReassigned(t *testing.T) {
	st := newSite(t)
	st.cfg.SessionBudget = 256 << 10
	p := level(2)
	p.MaxBurstLength, p.FirstBurstLength = 256<<10, 256<<10
	a := st.join(p)
	b := a.another(8)
	hold := st.dev.Hold(iscsitest.WriteAt)
	want := pattern(1, 256<<10)
	first := a.Start(iscsitest.Command{CDB: iscsitest.Write(0, len(want)/block), Out: want})
	a.WaitR2T(first)
	hold.Await(t) // it has all the memory
	itt := b.Start(iscsitest.Command{CDB: iscsitest.Write(1024, len(want)/block), Out: want})
	b.Alive()
	b.lost()
	hold.Release()
	good(t, a.Wait(first))
	for used := 1; used > 0; used = st.cfg.WriteBudget.Used() { // the memory has come, for nobody
		a.Alive()
	}
	a.recover(8, logoutClosed)
	a.takes(b, itt)
	good(t, a.Wait(itt))
	a.holds(1024, want)
}

// A reassignment that waits for the loss of one connection does nothing when that
// which asked for it has gone before.
func TestReassignToAConnectionThatHasGone(t *testing.T) {
	a := newSite(t).join(level(2))
	b, c := a.another(8), a.another(9)
	itt := b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	b.WaitR2T(itt)
	a.s.mu.Lock()
	b.c.retained.released = true // its loss is yet to be noticed
	a.s.mu.Unlock()
	c.Send(pdu.TaskManagement{Immediate: true, Function: pdu.TaskReassign, ITT: c.ITT(), RefTaskTag: itt, CmdSN: c.CmdSN, ExpDataSN: 1}.Header(), nil)
	c.Alive()
	c.logout(pdu.LogoutCloseConnection, 9)
	c.Expect(pdu.OpLogoutResponse)
	if err := <-c.ended; err == nil {
		t.Error("the connection ended well")
	}
	b.lost()
	a.takes(b, itt)
	a.Serve(a.WaitR2T(itt))
	good(t, a.Wait(itt))
}

// What a lost connection has kept may be asked for just when its time is over.
func TestReassignWhenTheTimeIsOver(t *testing.T) {
	for range 20 {
		a := newSite(t).join(level(2))
		b := a.another(8)
		var tags []uint32
		for i := range 900 {
			tags = append(tags, b.Start(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
			for i%100 == 99 && b.c.outbox.answered(tags[i]) == nil {
				a.Alive() // the window is open again
			}
		}
		b.lost()
		a.recover(8, logoutClosed)
		var begin sync.WaitGroup
		begin.Add(1)
		go func() {
			defer begin.Done()
			a.s.close()
		}()
		for _, itt := range slices.Backward(tags) {
			a.s.manage(1)
			a.c.reassign(pdu.TaskManagement{RefTaskTag: itt}, nil, func(byte) { a.s.manage(-1) })
		}
		begin.Wait()
		_ = a.Close()
		<-a.s.Done()
	}
}

// Where connections with the same CID were lost one after another, all of them are
// logged out together.
func TestLogoutOfSeveralWithOneCID(t *testing.T) {
	a := newSite(t).join(level(2))
	write := iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true}
	b := a.another(8)
	first := b.Start(write)
	b.WaitR2T(first)
	b.lost()
	c := a.another(8)
	second := c.Start(write)
	c.WaitR2T(second)
	c.lost()
	a.recover(8, logoutClosed)
	for from, itt := range map[*rig]uint32{b: first, c: second} {
		a.takes(from, itt)
		a.Serve(a.WaitR2T(itt))
		good(t, a.Wait(itt))
	}
}

// A logout is not answered while a write of a lost connection is under way.
func TestLogoutWaitsForLostConnections(t *testing.T) {
	for _, reason := range []uint8{pdu.LogoutCloseSession, pdu.LogoutCloseConnection} {
		a := newSite(t).join(level(2))
		b := a.another(8)
		hold := a.dev.Hold(iscsitest.WriteAt)
		b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Immediate: block})
		hold.Await(t)
		b.lost()
		a.logout(reason, 8)
		if p, err := a.TryRecv(50 * time.Millisecond); err == nil {
			t.Errorf("reason %d: opcode %#02x, though a write is under way", reason, byte(p.BHS.Opcode()))
		}
		hold.Release()
		if p := a.Expect(pdu.OpLogoutResponse); pdu.ParseLogoutResponse(&p.BHS).Response != logoutClosed {
			t.Errorf("reason %d: %+v", reason, pdu.ParseLogoutResponse(&p.BHS))
		}
	}
}

// A connection with the CID of one whose time to be recovered is over takes its place
// once nothing of it is under way.
func TestReinstatementWaitsForTasksThatEnd(t *testing.T) {
	a := newSite(t).join(level(2))
	b := a.another(8)
	hold := a.dev.Hold(iscsitest.WriteAt)
	b.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Immediate: block})
	hold.Await(t)
	b.lost()
	a.s.abandon(a.s.lostWith(8))
	good(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()})) // nothing has ended yet
	server, client := tcpPair(t)
	defer client.Close()
	defer server.Close()
	if _, err := a.s.Connect(server, pdu.NewReader(server, 8192, 1020), 8, a.s.Params, 1, 50*time.Millisecond); err == nil {
		t.Fatal("admitted, though a write is under way")
	}
	hold.Release()
	if err := <-b.ended; err == nil {
		t.Error("the connection ended well")
	}
	expect(t, a.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}), scsi.CheckCondition, 0x06477F)
	a.another(8).Alive()
}

// A status that is sent again counts as any other, so that a reader that asks for it
// over and over is not served faster than it takes.
func TestRestatedStatusCounts(t *testing.T) {
	r := newSite(t).join(level(1))
	itt := r.unacked(r.ExpStatSN, iscsitest.Command{CDB: iscsitest.Read(0, 1), In: block})
	var task *task
	for task == nil {
		task = r.c.outbox.answered(itt)
	}
	o := newOutbox(nil, r.s.window, 1, time.Second, pdu.Digests{})
	o.unacked = []answer{{t: task}}
	o.restate(task)
	if o.bytes != pdu.BHSLen {
		t.Errorf("%d bytes are queued", o.bytes)
	}
}

// What is kept until it is acknowledged is bounded in bytes, too.
func TestUnackedBytesAreBounded(t *testing.T) {
	r := newSite(t).join(level(1))
	r.Resent = true
	first := r.ExpStatSN
	go func() {
		for range unackedLimit {
			h := pdu.NopOut{Immediate: true, ITT: 77, TTT: pdu.NoTag, CmdSN: r.CmdSN, ExpStatSN: first}.Header()
			if r.TrySend(h, make([]byte, 128<<10)) != nil {
				return
			}
		}
	}()
	got := 0
	for _, p := range r.ExpectClosed() {
		got += len(p.Data)
	}
	if got > 2*unackedBytes {
		t.Errorf("%d bytes were kept", got)
	}
}

// Data goes over another connection in pieces that its initiator takes there.
func TestReassignToAConnectionThatTakesLess(t *testing.T) {
	p := level(2)
	p.MaxSendDataSegmentLength = 64 << 10
	a := newSite(t).join(p)
	b := a.another(8)
	a.s.mu.Lock()
	a.s.Params.MaxSendDataSegmentLength = 4096 // for the next connection
	a.s.mu.Unlock()
	c := a.another(9)
	want := pattern(1, 256<<10)
	a.fill(0, want)
	for _, stated := range []bool{true, false} {
		read := iscsitest.Command{CDB: iscsitest.Read(0, len(want)/block), In: uint32(len(want))}
		itt := b.Start(read)
		if stated {
			for b.c.outbox.answered(itt) == nil {
				a.Alive()
			}
		} else if err := b.Step(); err != nil {
			t.Fatal(err)
		}
		b.lost()
		c.recover(b.CID, logoutClosed)
		c.takes(b, itt)
		got := c.Wait(itt)
		good(t, got)
		if !bytes.Equal(got.Data, want) {
			t.Error("other data")
		}
		b = a.another(b.CID + 10)
	}
}

// A session that was closed before its first connection came takes none, and ends.
func TestClosedBeforeItsFirstConnection(t *testing.T) {
	st := newSite(t)
	s := New(st.cfg, Info{Target: "iqn.t", Initiator: "iqn.i", Params: level(2)}, st, st.inventory, nil, 1, func() {}, slog.New(slog.DiscardHandler))
	s.Close()
	server, client := tcpPair(t)
	defer client.Close()
	defer server.Close()
	if _, err := s.Connect(server, pdu.NewReader(server, 8192, 1020), 8, s.Params, 1, time.Second); !errors.Is(err, ErrOver) {
		t.Fatalf("got %v", err)
	}
	<-s.Done()
}

// Whenever connections of several break, and whatever is aborted then, every other
// command ends once, with its data.
func TestRecoveryOfSeveralAtAnyTime(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	p := level(2)
	p.MaxRecvDataSegmentLength, p.MaxSendDataSegmentLength, p.FirstBurstLength, p.MaxBurstLength = 8192, 8192, 16<<10, 32<<10
	a := newSite(t).join(p)
	all := []*rig{a, a.another(8), a.another(9)}
	const area, n = 64 << 10, 9
	model := make([]byte, n*area)
	for round := range 40 {
		var tags [n]uint32
		var reads [n]bool
		for i := range n {
			c := all[i%len(all)]
			if reads[i] = random.IntN(2) == 0; reads[i] {
				tags[i] = c.Start(iscsitest.Command{CDB: iscsitest.Read(i*area/block, area/block), In: area})
				continue
			}
			want := pattern(byte(round*n+i), area)
			copy(model[i*area:], want)
			tags[i] = c.Start(iscsitest.Command{CDB: iscsitest.Write(i*area/block, area/block), Out: want, Immediate: random.IntN(2) * iscsitest.Most, Unsolicited: random.IntN(2) * iscsitest.Most})
		}
		broken := 1 + random.IntN(2)
		for _, b := range all[1 : 1+broken] {
			for range random.IntN(8) {
				if len(b.Running()) == 0 {
					break
				}
				if err := b.Step(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, b := range all[1 : 1+broken] {
			_ = b.Close()
		}
		for k := 1; k <= broken; k++ {
			b := all[k]
			a.recover(b.CID, logoutClosed)
			for i := k; i < n; i += len(all) {
				if !b.Ended(tags[i]) && reads[i] && random.IntN(4) == 0 {
					a.Send(pdu.TaskManagement{Immediate: true, Function: pdu.AbortTask, ITT: a.ITT(), RefTaskTag: tags[i], RefCmdSN: b.SentAs(tags[i]), CmdSN: a.CmdSN}.Header(), nil)
					a.Until(pdu.OpTaskManagementResponse)
					tags[i] = 0
					continue
				}
				ended := b.Ended(tags[i])
				sn := a.TakeOver(b.Client, tags[i])
				if !ended && a.reassign(tags[i], sn) == pdu.TMFTaskDoesNotExist {
					a.Again(tags[i])
				}
			}
		}
		for i := range n {
			c := all[i%len(all)]
			if i%len(all) <= broken {
				c = a
			}
			if tags[i] == 0 {
				continue
			}
			got := c.Wait(tags[i])
			good(t, got)
			if reads[i] && !bytes.Equal(got.Data, model[i*area:(i+1)*area]) {
				t.Fatalf("round %d: read %d got other data", round, i)
			}
		}
		for k := 1; k <= broken; k++ {
			all[k] = a.another(all[k].CID)
		}
	}
	a.holds(0, model)
	a.keepsNothingEarly()
}
