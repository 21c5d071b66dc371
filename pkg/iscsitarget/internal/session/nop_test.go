package session

import (
	"bytes"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

func TestNopOut(t *testing.T) {
	p := usual()
	p.MaxSendDataSegmentLength = 512
	r := newSite(t).join(p)
	for _, immediate := range []bool{true, false} {
		for _, n := range []int{0, 1, 511, 512, 513, 4096} {
			itt := r.ITT()
			h := pdu.NopOut{Immediate: immediate, ITT: itt, TTT: pdu.NoTag, CmdSN: r.CmdSN}
			if !immediate {
				r.CmdSN++
			}
			data := pattern(1, n)
			r.Send(h.Header(), data)
			in := r.Expect(pdu.OpNopIn)
			if in.BHS.ITT() != itt || !bytes.Equal(in.Data, data[:min(n, 512)]) || pdu.ParseNopIn(&in.BHS).TTT != pdu.NoTag {
				t.Errorf("immediate %t, %d bytes: % x", immediate, n, in.BHS[:])
			}
		}
	}
}

// A NOP-Out that is an answer is none to answer, and cannot be numbered.
func TestNopOutAsAnswer(t *testing.T) {
	r := newSite(t).join(usual())
	r.Send(pdu.NopOut{Immediate: true, ITT: pdu.NoTag, TTT: 5, CmdSN: r.CmdSN}.Header(), nil)
	r.Alive()
	r.Send(pdu.NopOut{ITT: pdu.NoTag, TTT: pdu.NoTag, CmdSN: r.CmdSN}.Header(), nil)
	r.Expect(pdu.OpReject)
	r.Alive()
}

// The answer has the ping's LUN; a NOP-Out that only says ExpStatSN gets none, and
// moves no number (RFC 7143 sections 11.18 and 11.19).
func TestNopOutFields(t *testing.T) {
	r := newSite(t).join(usual())
	before := r.ExpStatSN
	for range 100 {
		r.Send(pdu.NopOut{Immediate: true, ITT: pdu.NoTag, TTT: pdu.NoTag, CmdSN: r.CmdSN, ExpStatSN: r.ExpStatSN}.Header(), nil)
	}
	lun := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	r.Send(pdu.NopOut{Immediate: true, LUN: lun, ITT: 5, TTT: pdu.NoTag, CmdSN: r.CmdSN, ExpStatSN: r.ExpStatSN}.Header(), nil)
	p := r.Expect(pdu.OpNopIn)
	if got := pdu.ParseNopIn(&p.BHS); got != (pdu.NopIn{LUN: lun, ITT: 5, TTT: pdu.NoTag}) || p.BHS.StatSN() != before {
		t.Errorf("StatSN %d, %+v", p.BHS.StatSN(), got)
	}
	if exp, _ := p.BHS.Window(); exp != r.CmdSN {
		t.Errorf("ExpCmdSN %d, CmdSN %d", exp, r.CmdSN)
	}
}

// NOP-Out is answered within a second while every worker is stuck in the device.
func TestNopOutWhileTheDeviceStalls(t *testing.T) {
	r := newSite(t).join(usual())
	writes, reads := r.dev.Hold(iscsitest.WriteAt), r.dev.Hold(iscsitest.ReadAt)
	var tags []uint32
	for i := range QueueDepth - 8 {
		if i%2 == 0 {
			tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.Write(i, 1), Out: pattern(1, block), Immediate: iscsitest.Most}))
		} else {
			tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.Read(i, 1), In: block}))
		}
	}
	writes.Await(t)
	reads.Await(t)
	if err := r.Ping(time.Second); err != nil {
		t.Fatal(err)
	}
	writes.Release()
	reads.Release()
	for _, itt := range tags {
		good(t, r.Wait(itt))
	}
}

// A silent initiator is asked after NopInterval, and given up NopTimeout later;
// one that answers lives.
func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t)
		st.cfg.NopInterval, st.cfg.NopTimeout = 10*time.Second, 7*time.Second
		server, client := net.Pipe()
		r := st.joinOver(server, client, usual())
		for range 5 {
			start := time.Now()
			in := pdu.ParseNopIn(ptr(r.Expect(pdu.OpNopIn).BHS))
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("asked after %v", took)
			}
			if in.ITT != pdu.NoTag || in.TTT == pdu.NoTag {
				t.Errorf("NOP-In %+v", in)
			}
			r.Send(pdu.NopOut{Immediate: true, ITT: pdu.NoTag, TTT: in.TTT, CmdSN: r.CmdSN, ExpStatSN: r.ExpStatSN}.Header(), nil)
		}
		r.Expect(pdu.OpNopIn)
		start := time.Now()
		if err := <-r.ended; !errors.Is(err, ErrPeerGone) {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("given up after %v", took)
		}
	})
}

// Without an interval nobody is asked, without a timeout nobody given up.
func TestPingForEver(t *testing.T) {
	for _, interval := range []time.Duration{-1, 0, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			st := newSite(t)
			st.cfg.NopInterval, st.cfg.NopTimeout, st.cfg.DataTimeout = interval, -1, time.Minute
			server, client := net.Pipe()
			r := st.joinOver(server, client, usual())
			if interval > 0 {
				r.Expect(pdu.OpNopIn)
			}
			if p, err := r.TryRecv(time.Hour); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("% x, %v", p.BHS[:], err)
			}
			r.Alive()
		})
	}
}

// A peer that stops in the middle of a PDU, and one that sends a byte now and
// then, is a silent one.
func TestHalfAPDU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t)
		st.cfg.NopInterval, st.cfg.NopTimeout = 10*time.Second, 10*time.Second
		server, client := net.Pipe()
		r := st.joinOver(server, client, usual())
		start := time.Now()
		var sender sync.WaitGroup
		sender.Go(func() {
			for _, b := range iscsitest.Encode(pdu.NopOut{Immediate: true, ITT: 1, TTT: pdu.NoTag}.Header(), nil) {
				if r.SendRaw([]byte{b}) != nil {
					return
				}
				<-time.After(3 * time.Second) // the bubble's clock
			}
		})
		r.Expect(pdu.OpNopIn)
		if err := <-r.ended; !errors.Is(err, ErrPeerGone) || time.Since(start) != 20*time.Second {
			t.Errorf("ended with %v after %v", err, time.Since(start))
		}
		r.Close()
		sender.Wait()
	})
}

// An initiator that takes nothing any more is given up after WriteTimeout.
func TestPeerTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t)
		st.cfg.NopInterval, st.cfg.NopTimeout = 10*time.Second, 10*time.Second
		server, client := net.Pipe()
		r := st.joinOver(server, client, usual())
		start := time.Now()
		r.Start(iscsitest.Command{CDB: iscsitest.Read(0, 512), In: 256 << 10})
		if err := <-r.ended; err == nil || time.Since(start) > 20*time.Second {
			t.Errorf("ended with %v after %v", err, time.Since(start))
		}
	})
}

func ptr[T any](v T) *T { return &v }
