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

const (
	unexpectedUnsolicited = 0x0b0c0c
	notEnoughUnsolicited  = 0x0b0c0d
	invalidFieldInIU      = 0x050e03
)

// Writes of sizes around every limit land as they were sent, however the data
// is split.
func TestWriteSizes(t *testing.T) {
	for _, r2t := range []bool{false, true} {
		for _, immediate := range []bool{false, true} {
			for _, first := range []uint32{512, 65536, 256 << 10} {
				p := usual()
				p.InitialR2T, p.ImmediateData, p.FirstBurstLength, p.MaxBurstLength = r2t, immediate, first, max(first, 64<<10)
				p.MaxRecvDataSegmentLength = 8 << 10
				t.Run(fmt.Sprintf("InitialR2T=%t,ImmediateData=%t,FirstBurstLength=%d", r2t, immediate, first), func(t *testing.T) {
					writeSizes(t, p)
				})
			}
		}
	}
}

func writeSizes(t *testing.T, p text.Params) {
	r := newSite(t).join(p)
	limits := []uint32{512, p.FirstBurstLength, p.MaxRecvDataSegmentLength, p.MaxBurstLength, maxBuffer, 2*p.MaxBurstLength + 512}
	ways := []struct{ immediate, unsolicited int }{{0, 0}, {iscsitest.Most, 0}, {0, iscsitest.Most}, {512, iscsitest.Most}, {512, 1024}, {100, 50}}
	seed, lba := byte(0), 0
	for _, limit := range limits {
		for _, n := range []int{int(limit) - block, int(limit), int(limit) + block} {
			if n <= 0 {
				continue
			}
			for _, w := range ways {
				seed++
				want := pattern(seed, n)
				r.fill(lba+n/block, make([]byte, block))
				good(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(lba, n/block), Out: want, Immediate: w.immediate, Unsolicited: w.unsolicited}))
				r.holds(lba, want)
				r.holds(lba+n/block, make([]byte, block))
				lba = (lba + 7) % 1000
			}
		}
	}
}

// A burst of odd PDU lengths, one byte among them, is put together.
func TestDataOutOfOddLengths(t *testing.T) {
	r := newSite(t).join(usual())
	want := pattern(1, 4096)
	itt := r.Start(iscsitest.Command{CDB: iscsitest.Write(8, 8), Out: want, Hold: true})
	r2t := r.WaitR2T(itt)
	for i, at := 0, 0; at < len(want); i++ {
		n := min([]int{1, 2, 3, 511, 0, 1021}[i%6], len(want)-at)
		r.Send(pdu.DataOut{Final: at+n == len(want), ITT: itt, TTT: r2t.TTT, DataSN: uint32(i), BufferOffset: uint32(at)}.Header(), want[at:at+n])
		at += n
	}
	good(t, r.Wait(itt))
	r.holds(8, want)
}

func TestUnsolicitedDataOutsideOfWhatWasNegotiated(t *testing.T) {
	closed := usual()
	closed.ImmediateData, closed.InitialR2T = false, true
	small := usual()
	small.FirstBurstLength = 1024
	for _, tt := range []struct {
		name                   string
		params                 text.Params
		immediate, unsolicited int
	}{
		{"immediate data where there is none", closed, 512, 0},
		{"unsolicited data where there is none", closed, 0, 4096},
		{"immediate data beyond the first burst", small, 2048, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newSite(t).join(tt.params)
			before := pattern(9, 4096)
			r.fill(0, before)
			got := r.Do(iscsitest.Command{
				CDB: iscsitest.Write(0, 8), Out: pattern(1, 4096), Reckless: true,
				Immediate: tt.immediate, Unsolicited: tt.unsolicited,
			})
			expect(t, got, scsi.CheckCondition, unexpectedUnsolicited)
			r.holds(0, before)
			r.Alive()
		})
	}
}

// Unsolicited Data-Outs that go beyond the first burst end the write.
func TestTooMuchUnsolicitedData(t *testing.T) {
	p := usual()
	p.FirstBurstLength = 1024
	r := newSite(t).join(p)
	got := r.Do(iscsitest.Command{CDB: iscsitest.Write(0, 8), Out: pattern(1, 4096), Reckless: true, Unsolicited: 4096})
	expect(t, got, scsi.CheckCondition, notEnoughUnsolicited)
	r.holds(0, make([]byte, 4096))
}

// With unsolicited Data-Outs the whole of a first burst comes, or what there is;
// immediate data may be any part of it (RFC 7143 section 11.4.7.2).
func TestAmountOfUnsolicitedData(t *testing.T) {
	p := usual()
	p.FirstBurstLength = 2048
	for _, tt := range []struct {
		immediate, unsolicited, n int
		wrong                     bool
	}{
		{512, 0, 4096, false}, {0, 2048, 4096, false}, {512, 1536, 4096, false}, {2048, 0, 4096, false},
		{0, 512, 4096, true}, {512, 512, 4096, true}, {512, 1024, 4096, true}, {0, 2047, 4096, true},
		{512, 1024, 2048, false}, {0, 512, 1024, false},
	} {
		t.Run(fmt.Sprintf("%d and %d of %d", tt.immediate, tt.unsolicited, tt.n), func(t *testing.T) {
			r := newSite(t).join(p)
			out := pattern(1, tt.n)
			got := r.Do(iscsitest.Command{
				CDB: iscsitest.Write(0, tt.n/block), Out: out, Reckless: true, Immediate: tt.immediate, Unsolicited: tt.unsolicited,
			})
			if tt.wrong {
				expect(t, got, scsi.CheckCondition, notEnoughUnsolicited)
				r.holds(0, make([]byte, tt.n))
				return
			}
			good(t, got)
			r.holds(0, out)
		})
	}
}

// A Data-Out with a wrong number, offset or length fails its command and
// nothing else; what comes after it in the burst is dropped.
func TestDataOutWithWrongFields(t *testing.T) {
	for _, tt := range []struct {
		name string
		out  pdu.DataOut
		n    int
	}{
		{"DataSN", pdu.DataOut{DataSN: 1}, 1024},
		{"DataSN of the whole", pdu.DataOut{DataSN: 1, Final: true}, 2048},
		{"offset of the whole", pdu.DataOut{BufferOffset: 4, Final: true}, 2048},
		{"DataSN huge", pdu.DataOut{DataSN: 0xffffffff}, 1024},
		{"offset ahead", pdu.DataOut{BufferOffset: 512}, 512},
		{"offset huge", pdu.DataOut{BufferOffset: 0xfffffe00}, 1024},
		{"too long", pdu.DataOut{}, 4096},
		{"too short", pdu.DataOut{Final: true}, 1024},
		{"nothing", pdu.DataOut{Final: true}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newSite(t).join(usual())
			itt := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 4), Out: pattern(1, 2048), Hold: true})
			ask := r.WaitR2T(itt)
			tt.out.ITT, tt.out.TTT = itt, ask.TTT
			r.Send(tt.out.Header(), pattern(2, tt.n))
			if !tt.out.Final {
				r.Send(pdu.DataOut{Final: true, ITT: itt, TTT: ask.TTT, DataSN: 1, BufferOffset: uint32(tt.n)}.Header(), pattern(3, 512))
			}
			expect(t, r.Wait(itt), scsi.CheckCondition, notEnoughUnsolicited)
			r.holds(0, make([]byte, 2048))
			good(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(0, 4), Out: pattern(1, 2048)}))
		})
	}
}

// A Data-Out that belongs to nothing is ignored, also where one of its two tags
// is that of a living task.
func TestDataOutForNobody(t *testing.T) {
	r := newSite(t).join(usual())
	a := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true})
	askA := r.WaitR2T(a)
	b := r.Start(iscsitest.Command{CDB: iscsitest.Write(1, 1), Out: pattern(2, block), Hold: true})
	askB := r.WaitR2T(b)
	for _, out := range []pdu.DataOut{
		{ITT: 0xdead, TTT: pdu.NoTag}, {ITT: 0xdead, TTT: 0xbeef}, {ITT: a, TTT: 0xbeef}, {ITT: a, TTT: pdu.NoTag},
		{ITT: a, TTT: askB.TTT}, {ITT: b, TTT: askA.TTT}, {ITT: pdu.NoTag, TTT: pdu.NoTag}, {ITT: 0xdead, TTT: askA.TTT},
	} {
		out.Final = true
		r.Send(out.Header(), pattern(7, block))
	}
	r.Alive()
	r.Serve(askB)
	r.Serve(askA)
	good(t, r.Wait(b))
	good(t, r.Wait(a))
	r.holds(0, pattern(1, block))
	r.holds(1, pattern(2, block))
	r.Send(pdu.DataOut{Final: true, ITT: a, TTT: askA.TTT}.Header(), pattern(7, block)) // of a task that ended
	r.Alive()
	r.holds(0, pattern(1, block))
}

func TestWriteResiduals(t *testing.T) {
	for _, tt := range []struct {
		blocks int
		expect uint32
		want   pdu.Residual
		lands  int
	}{
		{1, 0, pdu.Residual{Overflow: true, Count: 512}, 0},
		{2, 512, pdu.Residual{Overflow: true, Count: 512}, 512},
		{1, 1024, pdu.Residual{Underflow: true, Count: 512}, 512},
		{1, 10000, pdu.Residual{Underflow: true, Count: 9488}, 512},
		{1, 200, pdu.Residual{Overflow: true, Count: 312}, 200},
		{0, 512, pdu.Residual{Underflow: true, Count: 512}, 0},
	} {
		for _, immediate := range []int{0, 100, iscsitest.Most} {
			t.Run(fmt.Sprintf("%d blocks, %d expected, %d immediate", tt.blocks, tt.expect, immediate), func(t *testing.T) {
				r := newSite(t).join(usual())
				out := pattern(1, int(tt.expect))
				got := r.Do(iscsitest.Command{CDB: iscsitest.Write(0, tt.blocks), Out: out, Expect: &tt.expect, Immediate: immediate})
				if got.Status != scsi.Good || got.Residual != tt.want {
					t.Fatalf("got %v, want %+v", got, tt.want)
				}
				r.holds(0, append(bytes.Clone(out[:tt.lands]), make([]byte, 2048)...))
			})
		}
	}
}

// A parameter list whose length is not what the CDB says is refused, and
// nothing changes.
func TestParameterListOfWrongLength(t *testing.T) {
	r := newSite(t).join(usual())
	before := pattern(1, 4*block)
	r.fill(0, before)
	for _, n := range []int{0, 1, 256, 511, 513, 1024} {
		expected := uint32(n)
		got := r.Do(iscsitest.Command{CDB: iscsitest.WriteSame(0, 4), Out: pattern(2, n), Expect: &expected, Immediate: n % 3 * 100})
		expect(t, got, scsi.CheckCondition, invalidFieldInIU)
		r.holds(0, before)
	}
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.WriteSame(0, 4), Out: pattern(2, block)}))
	r.holds(0, bytes.Repeat(pattern(2, block), 4))
}

// A write that is flagged as a read would look done; it is refused.
func TestWriteFlaggedAsRead(t *testing.T) {
	r := newSite(t).join(usual())
	for _, cdb := range [][]byte{iscsitest.Write(0, 1), iscsitest.WriteSame(0, 1)} {
		got := r.Do(iscsitest.Command{CDB: cdb, In: block})
		expect(t, got, scsi.CheckCondition, invalidFieldInIU)
		if got.Residual != (pdu.Residual{Underflow: true, Count: block}) {
			t.Errorf("residual %+v", got.Residual)
		}
	}
	r.Alive()
}

// Where the memory for unasked data is out, a write is answered TASK SET FULL; one that
// asks for its data waits for memory. Nothing locks up.
func TestWriteBudgetExhausted(t *testing.T) {
	st := newSite(t)
	st.cfg.WriteBudget, st.cfg.SessionBudget = NewBudget(256<<10), 256<<10
	r := st.join(usual())
	hold := st.dev.Hold(iscsitest.WriteAt)
	stuck := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 512), Out: pattern(1, 256<<10), Immediate: iscsitest.Most})
	hold.Await(t)
	expect(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(1000, 1), Out: pattern(2, block), Immediate: iscsitest.Most}), scsi.TaskSetFull, 0)
	waiting := r.Start(iscsitest.Command{CDB: iscsitest.Write(2000, 1024), Out: pattern(3, 512<<10)})
	another := r.Start(iscsitest.Command{CDB: iscsitest.Write(4000, 1024), Out: pattern(4, 512<<10)})
	r.Alive()
	hold.Release()
	good(t, r.Wait(stuck))
	good(t, r.Wait(waiting))
	good(t, r.Wait(another))
	r.holds(2000, pattern(3, 512<<10))
	r.holds(4000, pattern(4, 512<<10))
}

// A session that ends while tasks wait for memory leaves nothing behind.
func TestSessionEndsWhileWaitingForMemory(t *testing.T) {
	st := newSite(t)
	st.cfg.WriteBudget, st.cfg.SessionBudget = NewBudget(256<<10), 256<<10
	r := st.join(usual())
	hold := st.dev.Hold(iscsitest.WriteAt)
	r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 512), Out: pattern(1, 256<<10), Immediate: iscsitest.Most})
	hold.Await(t)
	for i := range 20 {
		r.Start(iscsitest.Command{CDB: iscsitest.Write(2000+i, 1), Out: pattern(3, block)})
	}
	r.Alive()
	r.s.Close()
	select {
	case <-r.s.Done():
		t.Fatal("the session ended before its write did")
	case <-time.After(20 * time.Millisecond):
	}
	hold.Release()
	<-r.s.Done()
}

// An initiator that never sends what it was asked for is given up: its tasks
// hold memory that others need.
func TestDataNeverComes(t *testing.T) {
	for i := range 4 {
		solicited, nop := i%2 == 0, time.Duration(i/2)*10*time.Second
		t.Run(fmt.Sprintf("solicited=%t, NOP-In every %v", solicited, nop), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := newSite(t)
				st.cfg.NopInterval, st.cfg.NopTimeout, st.cfg.DataTimeout = nop, nop, time.Minute
				server, client := net.Pipe()
				r := st.joinOver(server, client, usual())
				start := time.Now()
				if solicited {
					r.WaitR2T(r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block), Hold: true}))
				} else {
					h := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}, r.ITT())
					h.Final = false
					r.CmdSN++
					r.Send(h.Header(), nil)
				}
				for answered := true; answered; {
					p, err := r.TryRecv(time.Hour)
					if err == nil {
						in := pdu.ParseNopIn(&p.BHS)
						err = r.TrySend(pdu.NopOut{Immediate: true, ITT: pdu.NoTag, TTT: in.TTT, CmdSN: r.CmdSN}.Header(), nil)
					}
					answered = err == nil
				}
				if took := time.Since(start); took < time.Minute || took > 100*time.Second {
					t.Errorf("given up after %v", took)
				}
				if err := <-r.ended; err == nil {
					t.Error("no error")
				}
			})
		})
	}
}
