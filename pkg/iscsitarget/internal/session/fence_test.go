package session

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// quiet fails the test if something comes within a moment.
func (r *rig) quiet() {
	r.Helper()
	if p, err := r.TryRecv(50 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		r.Fatalf("% x, %v", p.BHS[:], err)
	}
}

func (r *rig) abortTaskSet() (itt uint32) {
	r.Helper()
	itt = r.ITT()
	r.Send(pdu.TaskManagement{Immediate: true, Function: pdu.AbortTaskSet, ITT: itt, CmdSN: r.CmdSN, ExpStatSN: r.ExpStatSN}.Header(), nil)
	return itt
}

// The answer to a function waits until what was sent before it, over all connections,
// is acknowledged, and what comes after it waits until the answer is.
func TestResponseFence(t *testing.T) {
	for _, reporting := range []text.TaskReporting{text.ResponseFence, text.FastAbort} {
		p := several()
		p.TaskReporting = reporting
		a := newSite(t).join(p)
		b := a.another(8)
		b.Alive()
		before := b.ExpStatSN
		b.unacked(before, iscsitest.Command{CDB: iscsitest.TestUnitReady()})
		b.Expect(pdu.OpSCSIResponse)
		abort := a.abortTaskSet()
		b.Expect(pdu.OpNopIn)
		a.silent()
		after := b.unacked(before, iscsitest.Command{CDB: iscsitest.TestUnitReady()})
		a.silent()
		b.quiet()
		b.Send(pdu.NopOut{Immediate: true, ITT: pdu.NoTag, TTT: 1, CmdSN: b.CmdSN, ExpStatSN: b.ExpStatSN}.Header(), nil)
		if p := a.Expect(pdu.OpTaskManagementResponse); p.BHS.ITT() != abort {
			t.Errorf("% x", p.BHS[:])
		}
		a.Expect(pdu.OpNopIn)
		b.quiet()
		a.Alive() // acknowledges
		if p := b.Expect(pdu.OpSCSIResponse); p.BHS.ITT() != after {
			t.Errorf("% x", p.BHS[:])
		}
		a.Alive()
		b.Alive()
	}
}

// A fence does not outlast the connections that it waits for.
func TestResponseFenceWaitsForNobodyGone(t *testing.T) {
	p := several()
	p.TaskReporting = text.ResponseFence
	a := newSite(t).join(p)
	b, c := a.another(8), a.another(9)
	b.Alive()
	b.unacked(b.ExpStatSN, iscsitest.Command{CDB: iscsitest.TestUnitReady()})
	b.Expect(pdu.OpSCSIResponse)
	abort := a.abortTaskSet()
	b.Expect(pdu.OpNopIn)
	a.Alive()
	second := c.abortTaskSet() // has to wait for the first
	b.lost()
	if p := a.Until(pdu.OpTaskManagementResponse); p.BHS.ITT() != abort {
		t.Errorf("% x", p.BHS[:])
	}
	_ = a.Close() // before it has acknowledged
	if p := c.Until(pdu.OpTaskManagementResponse); p.BHS.ITT() != second {
		t.Errorf("% x", p.BHS[:])
	}
	c.Alive()
	if got := c.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}); got.SenseCode() != 0 {
		t.Error(got)
	}
}

// Without it there is no waiting, nor is there with one connection.
func TestNoResponseFence(t *testing.T) {
	p := several()
	p.TaskReporting = text.ResponseFence
	a := newSite(t).join(p)
	a.abortTaskSet()
	a.Expect(pdu.OpTaskManagementResponse)

	a = newSite(t).join(several())
	b := a.another(8)
	b.unacked(b.ExpStatSN, iscsitest.Command{CDB: iscsitest.TestUnitReady()})
	a.abortTaskSet()
	a.Expect(pdu.OpTaskManagementResponse)
}

// heldBack is a connection that has to acknowledge what came before before, so that an
// answer on another one goes.
func heldBack(t *testing.T) (a, b *rig, before uint32) {
	t.Helper()
	p := several()
	p.TaskReporting = text.ResponseFence
	a = newSite(t).join(p)
	b = a.another(8)
	b.Alive()
	before = b.ExpStatSN
	b.unacked(before, iscsitest.Command{CDB: iscsitest.TestUnitReady()})
	b.Expect(pdu.OpSCSIResponse)
	a.abortTaskSet()
	b.Expect(pdu.OpNopIn)
	return a, b, before
}

// However much a fence holds back, the acknowledgement that it waits for is heard.
func TestResponseFenceHoldsMuchBack(t *testing.T) {
	a, b, before := heldBack(t)
	const n = 512 << 10
	reads := 0
	for ; reads < 6; reads++ {
		b.unacked(before, iscsitest.Command{CDB: iscsitest.Read(0, n/block), In: n})
	}
	for b.c.outbox.backlog() < outboxLimit {
		a.Alive()
	}
	b.unacked(before, iscsitest.Command{CDB: iscsitest.TestUnitReady()})
	b.Send(pdu.NopOut{Immediate: true, ITT: pdu.NoTag, TTT: 1, CmdSN: b.CmdSN, ExpStatSN: b.ExpStatSN}.Header(), nil)
	a.Until(pdu.OpTaskManagementResponse)
	a.Alive() // acknowledges
	for ended := 0; ended <= reads; {
		if p := b.Recv(); p.BHS.Opcode() == pdu.OpSCSIResponse || p.BHS.Opcode() == pdu.OpDataIn && pdu.ParseDataIn(&p.BHS).HasStatus {
			ended++
		}
	}
	b.Alive()
}

// backlog is how many bytes wait.
func (o *outbox) backlog() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes
}

// A fence holds no more back than there is memory for: a connection that never
// acknowledges ends.
func TestResponseFenceIsNeverAcknowledged(t *testing.T) {
	a, b, before := heldBack(t)
	data := make([]byte, 8192)
	var sender sync.WaitGroup
	defer sender.Wait()
	sender.Go(func() {
		for b.TrySend(pdu.NopOut{Immediate: true, ITT: 1, TTT: pdu.NoTag, CmdSN: 1, ExpStatSN: before}.Header(), data) == nil {
		}
	})
	select {
	case err := <-b.ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(iscsitest.Timeout):
		t.Error("it goes on")
	}
	a.Until(pdu.OpTaskManagementResponse)
}

// A connection that is logged out is answered though a fence holds it back.
func TestLogoutBehindAResponseFence(t *testing.T) {
	_, b, _ := heldBack(t)
	itt := b.logout(pdu.LogoutCloseConnection, b.CID)
	if p := b.Expect(pdu.OpLogoutResponse); p.BHS.ITT() != itt {
		t.Errorf("% x", p.BHS[:])
	}
	b.ExpectClosed()
}

// A fence waits also where more has been sent since the last one than half of the numbers
// that StatSN has.
func TestResponseFenceAndOldNumbers(t *testing.T) {
	server, client := net.Pipe()
	defer server.Close()
	defer client.Close()
	for _, since := range []uint32{0, 1, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1} {
		o := newOutbox(server, newWindow(1, 1), 100, time.Second, pdu.Digests{})
		o.statSN += since
		statSN := o.hold()
		if o.has(statSN) != (since == 0) {
			t.Errorf("after %d PDUs: %v", since, o.has(statSN))
		}
		o.acknowledge(statSN)
		if !o.has(statSN) {
			t.Errorf("after %d PDUs: not acknowledged", since)
		}
	}
}
