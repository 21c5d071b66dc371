package session

import (
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// Every opcode that no initiator sends gets a Reject with its header, and the
// session goes on; a second login ends it.
func TestOpcodes(t *testing.T) {
	for op := range pdu.Opcode(64) {
		if handlers[op] != nil || op == pdu.OpDataOut {
			continue
		}
		t.Run(fmt.Sprintf("%#02x", byte(op)), func(t *testing.T) {
			r := newSite(t).join(usual())
			var h pdu.BHS
			h[0] = byte(op)
			r.Send(h, []byte("junk"))
			p := r.Expect(pdu.OpReject)
			h.SetDataLen(4)
			reason := byte(pdu.RejectNotSupported)
			switch op {
			case pdu.OpLoginRequest:
				reason = pdu.RejectProtocolError
			case pdu.OpSNACK:
				reason = pdu.RejectSNACK
			}
			if !slices.Equal(p.Data, h[:]) || pdu.ParseReject(&p.BHS).Reason != reason || p.BHS.ITT() != pdu.NoTag {
				t.Errorf("Reject %#02x with % x, want %#02x with % x", pdu.ParseReject(&p.BHS).Reason, p.Data, reason, h[:])
			}
			if op == pdu.OpLoginRequest {
				r.ExpectClosed()
				return
			}
			r.Alive()
		})
	}
}

func TestDiscoverySessionTakesNoCommands(t *testing.T) {
	r := newSite(t).join(usual(), func(i *Info) { i.Discovery = true })
	r.Alive()
	r.Send(r.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady()}, 1).Header(), nil)
	if p := r.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != pdu.RejectProtocolError {
		t.Errorf("reason %#02x", pdu.ParseReject(&p.BHS).Reason)
	}
	r.ExpectClosed()
}

// What is outside of the window, or was there before, is ignored: it is not
// executed, not answered, and moves no number.
func TestCommandsOutsideTheWindow(t *testing.T) {
	for _, start := range []uint32{1, 0xfffffff0, 0x7ffffff0, 0xffffffff, 0} {
		t.Run(fmt.Sprintf("%#x", start), func(t *testing.T) {
			st := newSite(t)
			st.first = start
			r := st.join(usual())
			for i := range 40 {
				for _, d := range []int32{-1, -2, -1000, -1 << 31, QueueDepth, QueueDepth + 1, 1 << 30} {
					h := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}, r.ITT())
					h.CmdSN += uint32(d)
					r.Send(h.Header(), pattern(1, block))
				}
				if got := r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}); got.Status != scsi.Good {
					t.Fatalf("command %d: %v", i, got)
				}
			}
			if len(r.Unasked) != 0 {
				t.Errorf("%d answers to what was to be ignored", len(r.Unasked))
			}
			r.holds(0, make([]byte, block))
			if exp, most := r.s.window.advertised(); exp != r.CmdSN || most != exp+QueueDepth-1 {
				t.Errorf("window %d..%d, next is %d", exp, most, r.CmdSN)
			}
		})
	}
}

// Requests that come before their turn are done in their turn, once, whatever
// comes twice meanwhile.
func TestEarlyCommands(t *testing.T) {
	st := newSite(t)
	st.first = 0xfffffff0
	r := st.join(usual())
	const n = 20
	base := r.CmdSN
	var tags []uint32
	for i := range n {
		tags = append(tags, r.ITT())
		_ = i
	}
	send := func(i int) {
		r.CmdSN = base + uint32(i)
		h := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: make([]byte, block)}, tags[i])
		r.Send(h.Header(), pattern(byte(i), block))
	}
	for i := n - 1; i > 0; i-- {
		send(i)
		if i%3 == 0 {
			send(i)
		}
	}
	r.CmdSN = base
	r.Alive()
	send(0)
	r.CmdSN = base + n
	seen := map[uint32]int{}
	for range n {
		p := r.Expect(pdu.OpSCSIResponse)
		if resp := pdu.ParseSCSIResponse(&p.BHS); resp.Status != scsi.Good {
			t.Errorf("status %#02x", resp.Status)
		}
		seen[p.BHS.ITT()]++
	}
	for _, itt := range tags {
		if seen[itt] != 1 {
			t.Errorf("command %#x was answered %d times", itt, seen[itt])
		}
	}
	r.Alive()
}

// What is kept for its turn is bounded: beyond that commands are answered with TASK
// SET FULL, in their turn, and nothing of them is written.
func TestEarlyDataIsBounded(t *testing.T) {
	r := newSite(t).join(usual())
	first := r.CmdSN
	const size = 256 << 10
	var tags []uint32
	for i := range 20 {
		r.CmdSN = first + 1 + uint32(i)
		tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.Write(i*size/block, size/block), Out: pattern(byte(i), size), Immediate: iscsitest.Most}))
	}
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady(), CmdSN: &first}))
	for i, itt := range tags {
		if i < earlyLimit/size {
			good(t, r.Wait(itt))
			r.holds(i*size/block, pattern(byte(i), size))
			continue
		}
		expect(t, r.Wait(itt), scsi.TaskSetFull, 0)
		r.holds(i*size/block, make([]byte, size))
	}
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(99, block)}))
}

// The first of several with one number counts, and the others take no room.
func TestEarlyDuplicates(t *testing.T) {
	r := newSite(t).join(usual())
	first := r.CmdSN
	itt := r.ITT()
	for i := range 20 {
		r.CmdSN = first + 1
		h := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 512), Out: make([]byte, 256<<10)}, itt)
		r.Send(h.Header(), pattern(byte(i), 256<<10))
	}
	r.CmdSN = first
	r.Alive()
	r.Start(iscsitest.Command{CDB: iscsitest.TestUnitReady()})
	r.CmdSN++
	for len(r.Unasked) == 0 {
		r.Alive()
	}
	r.holds(0, pattern(0, 256<<10))
}

func TestTagInUse(t *testing.T) {
	r := newSite(t).join(usual())
	itt := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	ask := r.WaitR2T(itt)
	for range 2 * QueueDepth {
		h := r.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady()}, itt)
		r.CmdSN++
		r.Send(h.Header(), nil)
		if p := r.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != pdu.RejectTaskInProgress {
			t.Fatalf("reason %#02x", pdu.ParseReject(&p.BHS).Reason)
		}
	}
	r.Serve(ask)
	good(t, r.Wait(itt))
	r.holds(0, pattern(1, block))
}

func TestReservedTag(t *testing.T) {
	r := newSite(t).join(usual())
	for range 2 * QueueDepth {
		h := r.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady()}, pdu.NoTag)
		r.CmdSN++
		r.Send(h.Header(), nil)
		r.Expect(pdu.OpReject)
	}
	r.Alive()
}

// Immediate commands beyond a bound are rejected; the numbered ones go on.
func TestTooManyImmediateCommands(t *testing.T) {
	r := newSite(t).join(usual())
	hold := r.dev.Hold(iscsitest.Sync)
	var tags []uint32
	for range immediateDepth {
		tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.SynchronizeCache(), Urgent: true}))
	}
	hold.Await(t)
	h := r.Header(iscsitest.Command{CDB: iscsitest.SynchronizeCache(), Urgent: true}, r.ITT())
	r.Send(h.Header(), nil)
	if p := r.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != pdu.RejectImmediate {
		t.Errorf("reason %#02x", pdu.ParseReject(&p.BHS).Reason)
	}
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	hold.Release()
	for _, itt := range tags {
		good(t, r.Wait(itt))
	}
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.SynchronizeCache(), Urgent: true}))
}

// A command's CDB goes on in an additional header; lengths that lie do no harm.
func TestAdditionalHeaders(t *testing.T) {
	for _, ahs := range [][]byte{
		{0, 0, 0, 0}, {0, 1, 1, 0}, {0xff, 0xff, 1, 0}, {0, 2, 1, 0}, {0, 5, 1, 0, 1, 2, 3, 4},
		{0, 5, 2, 0, 0, 0, 2, 0}, {0, 1, 2, 0, 0, 5, 1, 0, 1, 2, 3, 4}, make([]byte, 1020),
	} {
		t.Run(fmt.Sprintf("% x", ahs[:min(len(ahs), 12)]), func(t *testing.T) {
			r := newSite(t).join(usual())
			h := r.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady()}, r.ITT()).Header()
			r.CmdSN++
			h[4] = byte(len(ahs) / 4)
			if err := r.SendRaw(append(h[:], ahs...)); err != nil {
				t.Fatal(err)
			}
			r.Expect(pdu.OpSCSIResponse)
			r.Alive()
		})
	}
}

func TestBidirectionalIsRejected(t *testing.T) {
	r := newSite(t).join(usual())
	for range 2 * QueueDepth {
		h := r.Header(iscsitest.Command{CDB: iscsitest.Read(0, 1), In: block}, r.ITT())
		h.Write = true
		r.CmdSN++
		r.Send(h.Header(), nil)
		r.Expect(pdu.OpReject)
	}
	r.Alive()
}

// gauged remembers how its reader has gauged it.
type gauged struct {
	net.Conn
	nowaiter
	deep, shallow atomic.Int64
}

func (g *gauged) Gauge(deep bool) {
	if deep {
		g.deep.Add(1)
	} else {
		g.shallow.Add(1)
	}
}

// An initiator that takes each answer before the next command has few commands under way,
// and one that does not has many.
func TestGauge(t *testing.T) {
	server, client := tcpPair(t)
	conn := &gauged{Conn: server, nowaiter: server.(nowaiter)}
	r := newSite(t).joinOver(conn, client, usual())
	for range 20 {
		good(t, r.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	}
	if deep, shallow := conn.deep.Load(), conn.shallow.Load(); deep > 0 || shallow < 10 {
		t.Errorf("of 20 commands one by one %d times deep, %d not", deep, shallow)
	}
	var tags []uint32
	for range 3 * deepAnswers { // none of which acknowledges anything
		tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.TestUnitReady()}))
	}
	for _, itt := range tags {
		good(t, r.Wait(itt))
	}
	r.Alive()
	if conn.deep.Load() == 0 {
		t.Error("never deep")
	}
}
