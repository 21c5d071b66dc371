package session

import (
	"fmt"
	"slices"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

const burstLen = 64 << 10

// severalR2Ts is usual with n R2Ts at once, for bursts of burstLen.
func severalR2Ts(n uint32) text.Params {
	p := usual()
	p.MaxOutstandingR2T, p.MaxBurstLength, p.FirstBurstLength = n, burstLen, burstLen
	return p
}

// hold starts a write that answers no R2T, and returns the first n of them.
func (r *rig) hold(lba int, out []byte, n int) (itt uint32, asks []pdu.R2T) {
	r.Helper()
	itt = r.Start(iscsitest.Command{CDB: iscsitest.Write(lba, len(out)/block), Out: out, Hold: true})
	for range n {
		asks = append(asks, r.WaitR2T(itt))
	}
	return itt, asks
}

// part is a Data-Out of a burst: bytes from to to of it.
func part(ask pdu.R2T, sn uint32, from, to int) pdu.BHS {
	return pdu.DataOut{
		Final: to == int(ask.Length), LUN: ask.LUN, ITT: ask.ITT, TTT: ask.TTT, DataSN: sn, BufferOffset: ask.Offset + uint32(from),
	}.Header()
}

// As many R2Ts are out as were negotiated, 8 at most; each burst that is over
// makes room for one more. RFC 7143 sections 11.8 and 13.17; the client holds
// their number, order and lengths to it.
func TestOutstandingR2Ts(t *testing.T) {
	for offered, want := range map[uint32]int{1: 1, 2: 2, 5: 5, 8: 8, 65535: maxR2Ts} {
		for _, bursts := range []int{1, want, want + 3} {
			t.Run(fmt.Sprintf("%d of %d bursts", offered, bursts), func(t *testing.T) {
				r := newSite(t).join(severalR2Ts(offered))
				out := pattern(1, bursts*burstLen-block)
				itt, asks := r.hold(0, out, min(want, bursts))
				r.silent()
				for i := 0; i < bursts; i++ {
					r.Serve(asks[i])
					if len(asks) < bursts {
						asks = append(asks, r.WaitR2T(itt))
					}
				}
				good(t, r.Wait(itt))
				r.holds(0, out)
			})
		}
	}
}

// Bursts that are under way at once may come in pieces between each other, and
// end in any order.
func TestBurstsInterleaved(t *testing.T) {
	const n = 4
	orders := [][n]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 3, 0, 2}}
	for _, order := range orders {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			r := newSite(t).join(severalR2Ts(n))
			out := pattern(1, n*burstLen)
			itt, asks := r.hold(0, out, n)
			for sn := range 4 {
				for _, i := range order {
					from, to := sn*burstLen/4, (sn+1)*burstLen/4
					r.Send(part(asks[i], uint32(sn), from, to), out[i*burstLen:][from:to])
				}
			}
			good(t, r.Wait(itt))
			r.holds(0, out)
		})
	}
}

// A parameter list is collected from several bursts.
func TestParameterListInSeveralBursts(t *testing.T) {
	p := severalR2Ts(3)
	p.MaxBurstLength, p.FirstBurstLength = 512, 512
	r := newSite(t).join(p)
	for range 3 {
		good(t, r.Do(iscsitest.Command{CDB: iscsitest.WriteSame(0, 4), Out: pattern(2, block)}))
	}
	r.holds(0, slices.Concat(pattern(2, block), pattern(2, block)))
}

// A write that fails waits for every burst that it has asked for, and asks for no
// more (RFC 7143 section 7.8).
func TestFailureWaitsForAllBursts(t *testing.T) {
	p := severalR2Ts(3)
	p.HeaderDigest, p.DataDigest = true, true
	r := newSite(t).join(p)
	out := pattern(1, 6*burstLen)
	itt, asks := r.hold(0, out, 3)
	r.Serve(asks[0])
	asks = append(asks, r.WaitR2T(itt)) // there is room for another
	data := out[asks[1].Offset:][:burstLen]
	r.damage(part(asks[1], 0, 0, burstLen), data, 0)
	r.rejected(part(asks[1], 0, 0, burstLen), data)
	for _, ask := range asks[2:] {
		r.silent()
		r.Serve(ask)
	}
	got := r.Wait(itt)
	expect(t, got, scsi.CheckCondition, protocolCRC)
	if len(got.R2Ts) != 4 {
		t.Errorf("%d R2Ts", len(got.R2Ts))
	}
	r.holds(burstLen/block, make([]byte, burstLen))
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(0, len(out)/block), Out: out}))
	r.holds(0, out)
}

// A write that fails while its next burst waits for memory does not ask for it.
func TestFailureBeforeTheNextR2T(t *testing.T) {
	st := newSite(t)
	st.cfg.WriteBudget, st.cfg.SessionBudget = NewBudget(burstLen), burstLen
	r := st.join(severalR2Ts(8))
	gate := st.dev.Hold(iscsitest.WriteAt)
	out := pattern(1, 2*burstLen)
	itt, asks := r.hold(0, out, 1)
	r.Serve(asks[0])
	gate.Await(t)
	r.silent()
	r.s.mu.Lock()
	r.s.tasks[itt].fail(scsi.SenseProtocolCRC)
	r.s.mu.Unlock()
	gate.Release()
	got := r.Wait(itt)
	expect(t, got, scsi.CheckCondition, protocolCRC)
	if len(got.R2Ts) != 1 {
		t.Errorf("%d R2Ts", len(got.R2Ts))
	}
}

// A task with several bursts under way is aborted at once; what comes of them is
// dropped.
func TestAbortWithSeveralBursts(t *testing.T) {
	r := newSite(t).join(severalR2Ts(8))
	itt, asks := r.hold(0, pattern(1, 8*burstLen), 8)
	r.manages(pdu.TMFComplete, pdu.AbortTask, iscsitest.LUN(0), itt)
	for _, ask := range asks {
		r.Serve(ask)
	}
	r.silent()
	r.holds(0, make([]byte, 8*burstLen))
	if used := r.cfg.WriteBudget.Used(); used != 0 {
		t.Errorf("%d bytes are out", used)
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if len(r.s.bursts) != 0 {
		t.Errorf("%d tags are in use", len(r.s.bursts))
	}
}

// Bursts beyond a command's first one take no more than half of the memory, so
// that other writes find theirs.
func TestSeveralR2TsKeepTheBudget(t *testing.T) {
	for _, tt := range []struct{ session, process, want int }{
		{8 * burstLen, 64 * burstLen, 4}, {64 * burstLen, 8 * burstLen, 4}, {burstLen, burstLen, 1}, {3 * burstLen, 64 * burstLen, 1},
	} {
		t.Run(fmt.Sprintf("%d of %d", tt.session, tt.process), func(t *testing.T) {
			st := newSite(t)
			st.cfg.WriteBudget, st.cfg.SessionBudget = NewBudget(tt.process), tt.session
			r := st.join(severalR2Ts(8))
			out := pattern(1, 8*burstLen)
			itt, asks := r.hold(0, out, tt.want)
			r.silent()
			if tt.want > 1 {
				good(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(4000, 1), Out: pattern(2, block), Immediate: iscsitest.Most}))
			}
			for i := 0; i < 8; i++ {
				r.Serve(asks[i])
				for len(asks) < min(8, i+2) {
					asks = append(asks, r.WaitR2T(itt))
				}
			}
			good(t, r.Wait(itt))
			r.holds(0, out)
		})
	}
}

// Many writes with many bursts, in little memory, all end.
func TestSeveralR2TsInLittleMemory(t *testing.T) {
	for _, budget := range []int{burstLen, 2 * burstLen, 5 * burstLen} {
		t.Run(fmt.Sprint(budget), func(t *testing.T) {
			st := newSite(t)
			st.cfg.WriteBudget, st.cfg.SessionBudget = NewBudget(budget), budget
			r := st.join(severalR2Ts(8))
			const n, blocks = 40, 5*burstLen/block + 1
			var tags []uint32
			for i := range n {
				tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.Write(i*blocks, blocks), Out: pattern(byte(i), blocks*block)}))
			}
			for i, itt := range tags {
				good(t, r.Wait(itt))
				r.holds(i*blocks, pattern(byte(i), blocks*block))
			}
		})
	}
}

// The transfer tags that say something else than a tag are left out when the numbers go
// round: 0 is that of a burst that was not asked for yet.
func TestTransferTagsGoRound(t *testing.T) {
	r := newSite(t).join(usual())
	r.s.mu.Lock()
	r.s.nextTTT = pdu.NoTag - 2
	r.s.mu.Unlock()
	for range 3 {
		itt := r.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)})
		good(t, r.Wait(itt))
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.nextTTT != 2 {
		t.Errorf("the third tag is %#x", r.s.nextTTT)
	}
}
