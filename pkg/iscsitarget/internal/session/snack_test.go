package session

import (
	"bytes"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// level is several at an error recovery level.
func level(n uint32) text.Params {
	p := several()
	p.ErrorRecoveryLevel, p.DefaultTime2Retain = n, 20
	return p
}

// unacked sends a command that acknowledges nothing beyond expStatSN, and leaves its
// answers to be taken.
func (r *rig) unacked(expStatSN uint32, cmd iscsitest.Command) (itt uint32) {
	r.Helper()
	itt = r.ITT()
	h := r.Header(cmd, itt)
	h.ExpStatSN = expStatSN
	r.CmdSN++
	r.Send(h.Header(), nil)
	return itt
}

func (r *rig) snack(req pdu.SNACK) {
	r.Helper()
	r.Send(req.Header(), nil)
}

func (r *rig) turnsDown(reason byte) {
	r.Helper()
	p := r.Expect(pdu.OpReject)
	if got := pdu.ParseReject(&p.BHS).Reason; got != reason {
		r.Fatalf("reason %#02x, want %#02x", got, reason)
	}
}

// Statuses come again, as they were, until they are acknowledged.
func TestStatusSNACK(t *testing.T) {
	r := newSite(t).join(level(1))
	r.Alive()
	r.Resent = true
	first := r.ExpStatSN
	var sent []pdu.PDU
	for range 3 {
		r.unacked(first, iscsitest.Command{CDB: iscsitest.TestUnitReady()})
		sent = append(sent, r.Expect(pdu.OpSCSIResponse))
	}
	bad := r.unacked(first, iscsitest.Command{CDB: []byte{0xff}})
	if sent = append(sent, r.Expect(pdu.OpSCSIResponse)); len(sent[3].Data) == 0 {
		t.Errorf("no sense for command %#x", bad)
	}
	for _, tt := range []struct{ begin, length, from, to uint32 }{{0, 0, 0, 4}, {1, 2, 1, 3}, {3, 1, 3, 4}, {4, 0, 4, 4}} {
		r.snack(pdu.SNACK{Type: pdu.SNACKStatus, ITT: pdu.NoTag, TTT: pdu.NoTag, ExpStatSN: first, BegRun: first + tt.begin, RunLength: tt.length})
		for i := tt.from; i < tt.to; i++ {
			p := r.Expect(pdu.OpSCSIResponse)
			p.BHS.SetWindow(sent[i].BHS.Window())
			if p.BHS != sent[i].BHS || !bytes.Equal(p.Data, sent[i].Data) {
				t.Errorf("%+v: status %d became % x", tt, i, p.BHS[:])
			}
		}
	}
	snack := pdu.SNACK{Type: pdu.SNACKStatus, ITT: pdu.NoTag, TTT: pdu.NoTag, ExpStatSN: first, BegRun: first + 5}
	r.snack(snack)
	r.turnsDown(pdu.RejectSNACK)
	snack.BegRun, snack.RunLength = first+1, 5
	r.snack(snack) // now there is the Reject, too
	r.turnsDown(pdu.RejectSNACK)
	snack.BegRun, snack.RunLength, snack.ExpStatSN = first+1, 1, first+2
	r.snack(snack)
	r.turnsDown(pdu.RejectProtocolError)
	snack.ExpStatSN += 1 << 30 // nonsense acknowledges nothing
	snack.BegRun = first + 2
	r.snack(snack)
	r.Expect(pdu.OpSCSIResponse)
}

// read starts a read of n bytes at block 0, acknowledges nothing, and takes its
// Data-Ins and status.
func (r *rig) readUnacked(n int) (itt uint32, data []pdu.PDU, status pdu.PDU) {
	r.Helper()
	itt = r.unacked(r.ExpStatSN, iscsitest.Command{CDB: iscsitest.Read(0, n/block), In: uint32(n)})
	for {
		p := r.Recv()
		switch p.BHS.Opcode() {
		case pdu.OpDataIn:
			data = append(data, p)
		case pdu.OpSCSIResponse:
			return itt, data, p
		case pdu.OpNopIn: // it asks for an acknowledgement
		default:
			r.Fatalf("% x", p.BHS[:])
		}
	}
}

// Data-Ins come again, as they were, until their command's status is acknowledged.
func TestDataSNACK(t *testing.T) {
	p := level(1)
	p.MaxSendDataSegmentLength = 4096
	r := newSite(t).join(p)
	r.fill(0, pattern(1, 32<<10))
	r.Alive()
	r.Resent = true
	itt, data, status := r.readUnacked(32 << 10)
	resp := pdu.ParseSCSIResponse(&status.BHS)
	if len(data) != 8 || resp.ExpDataSN != 8 || resp.Status != scsi.Good {
		t.Fatalf("%d Data-Ins, %+v", len(data), resp)
	}
	r.fill(0, pattern(2, 32<<10)) // what is sent again is what was sent
	for _, tt := range []struct{ begin, length, from, to uint32 }{{3, 2, 3, 5}, {6, 0, 6, 8}, {0, 0, 0, 8}, {8, 0, 8, 8}} {
		r.snack(pdu.SNACK{Type: pdu.SNACKData, ITT: itt, TTT: pdu.NoTag, ExpStatSN: r.ExpStatSN, BegRun: tt.begin, RunLength: tt.length})
		for i := tt.from; i < tt.to; i++ {
			p := r.Expect(pdu.OpDataIn)
			p.BHS.SetWindow(data[i].BHS.Window())
			if p.BHS != data[i].BHS || !bytes.Equal(p.Data, pattern(1, 32<<10)[i<<12:(i+1)<<12]) {
				t.Errorf("%+v: Data-In %d became % x", tt, i, p.BHS[:])
			}
		}
	}
	for _, s := range []pdu.SNACK{{BegRun: 9}, {BegRun: 7, RunLength: 2}, {ITT: 1}} {
		s.Type, s.TTT, s.ExpStatSN = pdu.SNACKData, pdu.NoTag, r.ExpStatSN
		if s.ITT == 0 {
			s.ITT = itt
		}
		r.snack(s)
		r.turnsDown(pdu.RejectSNACK)
	}
	r.snack(pdu.SNACK{Type: pdu.SNACKData, ITT: itt, TTT: pdu.NoTag, ExpStatSN: status.BHS.StatSN() + 1})
	r.turnsDown(pdu.RejectSNACK) // it is over
	if used := r.cfg.ReadBudget.Used(); used != 0 {
		t.Errorf("%d bytes are kept of what was acknowledged", used)
	}
	r.snack(pdu.SNACK{Type: 9, ITT: itt})
	r.turnsDown(pdu.RejectInvalidField)
}

// The sequences of a long read are acknowledged one by one, and not kept any longer.
func TestDataACK(t *testing.T) {
	p := level(1)
	p.MaxSendDataSegmentLength, p.MaxBurstLength = 8192, 16<<10
	r := newSite(t).join(p)
	r.fill(0, pattern(1, 48<<10))
	r.Alive()
	r.Resent = true
	itt, data, _ := r.readUnacked(48 << 10)
	var acks []pdu.DataIn
	for i, p := range data {
		in := pdu.ParseDataIn(&p.BHS)
		if last := i == len(data)-1; in.Final != (i%2 == 1) || in.Acknowledge != (in.Final && !last) || in.HasStatus {
			t.Errorf("Data-In %d: %+v", i, in)
		}
		if in.Acknowledge {
			acks = append(acks, in)
		}
	}
	used := r.cfg.ReadBudget.Used()
	ack := pdu.SNACK{Type: pdu.SNACKDataACK, LUN: acks[1].LUN, ITT: pdu.NoTag, TTT: acks[1].TTT, ExpStatSN: r.ExpStatSN, BegRun: acks[1].DataSN + 1}
	for _, edit := range []func(*pdu.SNACK){
		func(s *pdu.SNACK) { s.TTT += 100 }, func(s *pdu.SNACK) { s.LUN[1] = 3 },
		func(s *pdu.SNACK) { s.BegRun = 7 }, func(s *pdu.SNACK) { s.RunLength = 1 },
	} {
		wrong := ack
		edit(&wrong)
		r.snack(wrong)
		r.turnsDown(pdu.RejectInvalidDataACK)
	}
	r.snack(ack)
	r.snack(pdu.SNACK{Type: pdu.SNACKData, ITT: itt, TTT: pdu.NoTag, ExpStatSN: r.ExpStatSN, BegRun: 3})
	r.turnsDown(pdu.RejectProtocolError) // it was acknowledged
	r.snack(pdu.SNACK{Type: pdu.SNACKData, ITT: itt, TTT: pdu.NoTag, ExpStatSN: r.ExpStatSN, BegRun: 4, RunLength: 1})
	r.Expect(pdu.OpDataIn)
	if now := r.cfg.ReadBudget.Used(); now >= used {
		t.Errorf("%d bytes are kept, %d were before", now, used)
	}
}

// Data-Ins that have become too long for the initiator come again in pieces, and the
// status behind them.
func TestResegment(t *testing.T) {
	p := level(1)
	p.MaxSendDataSegmentLength = 8192
	r := newSite(t).join(p)
	want := pattern(1, 32<<10)
	r.fill(0, want)
	r.Alive()
	r.Resent = true
	itt, _, status := r.readUnacked(len(want))
	r.c.maxSend.Store(1000)
	r.snack(pdu.SNACK{Type: pdu.SNACKData, ITT: itt, TTT: pdu.NoTag, ExpStatSN: r.ExpStatSN})
	r.turnsDown(pdu.RejectSNACK)
	r.snack(pdu.SNACK{Type: pdu.SNACKRData, ITT: itt, TTT: 0x5ac, ExpStatSN: r.ExpStatSN})
	var got []byte
	for sn := uint32(0); len(got) < len(want); sn++ {
		p := r.Expect(pdu.OpDataIn)
		in := pdu.ParseDataIn(&p.BHS)
		if in.DataSN != sn || int(in.BufferOffset) != len(got) || len(p.Data) > 1000 || in.Final != (len(got)+len(p.Data) == len(want)) {
			t.Fatalf("%d bytes, then %d: %+v", len(got), len(p.Data), in)
		}
		got = append(got, p.Data...)
	}
	if !bytes.Equal(got, want) {
		t.Error("other data")
	}
	again := r.Expect(pdu.OpSCSIResponse)
	resp := pdu.ParseSCSIResponse(&again.BHS)
	if resp.SNACKTag != 0x5ac || resp.ExpDataSN != 36 || again.BHS.StatSN() != status.BHS.StatSN() {
		t.Errorf("%+v, StatSN %d", resp, again.BHS.StatSN())
	}
	r.snack(pdu.SNACK{Type: pdu.SNACKData, ITT: itt, TTT: pdu.NoTag, ExpStatSN: r.ExpStatSN, BegRun: 35})
	r.Expect(pdu.OpDataIn)
	for _, s := range []pdu.SNACK{{ITT: itt}, {ITT: itt, TTT: 1, BegRun: 1}, {ITT: itt, TTT: 1, RunLength: 1}} {
		s.Type, s.ExpStatSN = pdu.SNACKRData, r.ExpStatSN
		r.snack(s)
		r.turnsDown(pdu.RejectInvalidField)
	}
}

// An R2T comes again as it was, while its data has not come.
func TestR2TSNACK(t *testing.T) {
	r := newSite(t).join(level(1))
	itt := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	ask := r.WaitR2T(itt)
	r.snack(pdu.SNACK{Type: pdu.SNACKData, ITT: itt, TTT: pdu.NoTag, ExpStatSN: r.ExpStatSN})
	p := r.Expect(pdu.OpR2T)
	if again := pdu.ParseR2T(&p.BHS); again != ask {
		t.Errorf("%+v became %+v", ask, again)
	}
	r.snack(pdu.SNACK{Type: pdu.SNACKData, ITT: itt, TTT: pdu.NoTag, ExpStatSN: r.ExpStatSN, BegRun: 2})
	r.turnsDown(pdu.RejectSNACK)
	r.Serve(ask)
	good(t, r.Wait(itt))
	r.holds(0, pattern(1, block))
}

// Data-Out that was damaged is asked for again, from there on, and the command ends
// as if nothing had been (RFC 7143 section 7.8).
func TestDamagedDataOutComesAgain(t *testing.T) {
	const n = 64 << 10
	for _, unsolicited := range []bool{false, true} {
		for _, at := range []int{0, 2, 3} {
			t.Run(fmt.Sprintf("unsolicited %t, Data-Out %d", unsolicited, at), func(t *testing.T) {
				p := level(1)
				p.DataDigest, p.MaxRecvDataSegmentLength, p.FirstBurstLength = true, 16<<10, n
				r := newSite(t).join(p)
				want := pattern(byte(at+1), n)
				itt := r.ITT()
				h := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, n/block), Out: want}, itt)
				h.Final = !unsolicited
				r.CmdSN++
				r.Send(h.Header(), nil)
				ttt := uint32(pdu.NoTag)
				if !unsolicited {
					ask := r.Expect(pdu.OpR2T)
					ttt = pdu.ParseR2T(&ask.BHS).TTT
				}
				for i := range 4 {
					out := pdu.DataOut{Final: i == 3, ITT: itt, TTT: ttt, ExpStatSN: r.ExpStatSN, DataSN: uint32(i), BufferOffset: uint32(i << 14)}.Header()
					data := want[i<<14 : (i+1)<<14]
					if i == at {
						r.damage(out, data, 0)
						continue
					}
					r.Send(out, data)
				}
				r.turnsDown(pdu.RejectDataDigest)
				ask := pdu.ParseR2T(&[]pdu.PDU{r.Expect(pdu.OpR2T)}[0].BHS)
				wantSN := uint32(1)
				if unsolicited {
					wantSN = 0
				}
				if int(ask.Offset) != at<<14 || int(ask.Length) != n-at<<14 || ask.R2TSN != wantSN {
					t.Fatalf("%+v", ask)
				}
				for i := at; i < 4; i++ {
					r.Send(pdu.DataOut{Final: i == 3, ITT: itt, TTT: ask.TTT, ExpStatSN: r.ExpStatSN, DataSN: uint32(i - at), BufferOffset: uint32(i << 14)}.Header(), want[i<<14:(i+1)<<14])
				}
				answer := r.Expect(pdu.OpSCSIResponse)
				if resp := pdu.ParseSCSIResponse(&answer.BHS); resp.Status != scsi.Good || resp.ExpDataSN != wantSN+1 {
					t.Errorf("%+v", resp)
				}
				r.holds(0, want)
			})
		}
	}
}

// An initiator whose data is damaged whenever it comes is not asked for ever.
func TestRecoveryEnds(t *testing.T) {
	p := level(1)
	p.DataDigest = true
	r := newSite(t).join(p)
	itt := r.ITT()
	h := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}, itt)
	r.CmdSN++
	r.Send(h.Header(), nil)
	for range recoveryLimit + 1 {
		ask := r.Expect(pdu.OpR2T)
		r.damage(pdu.DataOut{Final: true, ITT: itt, TTT: pdu.ParseR2T(&ask.BHS).TTT, ExpStatSN: r.ExpStatSN}.Header(), pattern(1, block), 0)
		r.turnsDown(pdu.RejectDataDigest)
	}
	answer := r.Expect(pdu.OpSCSIResponse)
	if resp := pdu.ParseSCSIResponse(&answer.BHS); resp.Status != scsi.CheckCondition {
		t.Errorf("%+v", resp)
	}
	r.holds(0, make([]byte, block))
}

// A read that would not fit the memory of its session is still kept whole, a sequence
// at a time; an initiator that acknowledges nothing holds up itself alone.
func TestKeptDataIsBounded(t *testing.T) {
	p := level(1)
	st := newSite(t)
	r := st.join(p)
	other := st.join(usual())
	st.fill(0, pattern(1, 32<<20))
	r.MuteACKs, r.MutePings = true, true
	var tags []uint32
	for range 4 {
		tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.Read(0, 8<<20/block), In: 8 << 20}))
	}
	good(t, other.Do(iscsitest.Command{CDB: iscsitest.Read(0, 1<<20/block), In: 1 << 20}))
	if used := st.cfg.ReadBudget.Used(); used > st.cfg.SessionBudget {
		t.Errorf("%d bytes are kept", used)
	}
	r.MuteACKs = false
	_ = tags
	r.s.Close()
	<-r.s.Done()
	if used := st.cfg.ReadBudget.Used(); used != 0 {
		t.Errorf("%d bytes are kept of a session that has ended", used)
	}
}

// With acknowledgements every read comes to its end, whatever there are at once, and
// an initiator that sends nothing by itself is asked for them.
func TestKeptDataMovesOn(t *testing.T) {
	for _, n := range []uint32{1, 2} {
		r := newSite(t).join(level(n))
		want := pattern(1, 4<<20)
		r.fill(0, want)
		var tags []uint32
		for range 24 {
			tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.Read(0, len(want)/block), In: uint32(len(want))}))
		}
		for _, itt := range tags {
			got := r.Wait(itt)
			good(t, got)
			if !bytes.Equal(got.Data, want) {
				t.Fatal("other data")
			}
		}
		for range 200 {
			good(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(0, 8), Out: pattern(1, 4096), Immediate: iscsitest.Most}))
		}
		r.Alive()
		r.c.outbox.mu.Lock()
		if kept := len(r.c.outbox.unacked); kept > 2 {
			t.Errorf("%d PDUs are kept", kept)
		}
		r.c.outbox.mu.Unlock()
	}
}

// An initiator that acknowledges nothing at all has its connection closed.
func TestUnackedIsBounded(t *testing.T) {
	r := newSite(t).join(level(1))
	r.Resent = true
	first := r.ExpStatSN
	go func() {
		for range unackedLimit + 100 {
			h := pdu.NopOut{Immediate: true, ITT: 77, TTT: pdu.NoTag, CmdSN: r.CmdSN, ExpStatSN: first}.Header()
			if r.TrySend(h, nil) != nil {
				return
			}
		}
	}()
	r.ExpectClosed()
	select {
	case <-r.s.Done():
	case <-time.After(iscsitest.Timeout):
		t.Error("the session has not ended")
	}
}

// One that answers, but acknowledges nothing for as long as data may take, has its
// connection closed, too: what is kept for it is missing elsewhere.
func TestUnackedForTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t)
		st.cfg.DataTimeout = time.Minute
		server, client := net.Pipe()
		r := st.joinOver(server, client, level(1))
		r.Alive()
		r.Resent = true
		start, first := time.Now(), r.ExpStatSN
		itt := r.unacked(first, iscsitest.Command{CDB: iscsitest.Read(0, 256), In: 128 << 10})
		for err := error(nil); err == nil; {
			var p pdu.PDU
			if p, err = r.TryRecv(time.Hour); err == nil && p.BHS.Opcode() == pdu.OpNopIn {
				err = r.TrySend(pdu.NopOut{Immediate: true, ITT: pdu.NoTag, TTT: 1, CmdSN: r.CmdSN, ExpStatSN: first}.Header(), nil)
			}
		}
		if took := time.Since(start); took < time.Minute || took > 100*time.Second {
			t.Errorf("command %#x: given up after %v", itt, took)
		}
	})
}
