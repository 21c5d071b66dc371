package session

import (
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// asked has the target ask for a logout, in fake time, and takes the message.
func (r *rig) asked(within time.Duration) (returned <-chan time.Duration) {
	r.Helper()
	start, done := time.Now(), make(chan time.Duration, 1)
	var wg sync.WaitGroup
	wg.Go(func() { r.s.RequestLogout(within); done <- time.Since(start) })
	r.Cleanup(wg.Wait)
	p := r.Expect(pdu.OpAsync)
	want := pdu.AsyncMessage{Event: pdu.AsyncRequestLogout, Parameter3: uint16(within / time.Second)}
	if got := pdu.ParseAsyncMessage(&p.BHS); got != want || p.BHS.ITT() != pdu.NoTag || len(p.Data) != 0 {
		r.Fatalf("got %+v, want %+v", got, want)
	}
	return done
}

// fake runs a session in fake time.
func fake(t *testing.T, f func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		f(t, newSite(t).joinOver(server, client, usual()))
	})
}

// An initiator that logs out in time ends well, and may do I/O until then.
func TestRequestLogout(t *testing.T) {
	fake(t, func(t *testing.T, r *rig) {
		returned := r.asked(3 * time.Second)
		good(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}))
		r.logout(pdu.LogoutCloseSession, 0)
		r.Expect(pdu.OpLogoutResponse)
		r.ExpectClosed()
		if err := <-r.ended; !errors.Is(err, ErrLogout) {
			t.Errorf("ended with %v", err)
		}
		if took := <-returned; took != 0 {
			t.Errorf("took %v", took)
		}
		r.holds(0, pattern(1, block))
	})
}

// One that does not is told that it is dropped, when its time is over.
func TestRequestLogoutInVain(t *testing.T) {
	fake(t, func(t *testing.T, r *rig) {
		start := time.Now()
		returned := r.asked(3 * time.Second)
		p, err := r.TryRecv(time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("dropped after %v", took)
		}
		want := pdu.AsyncMessage{Event: pdu.AsyncDropConnection, Parameter1: 7, Parameter2: 2}
		if got := pdu.ParseAsyncMessage(&p.BHS); p.BHS.Opcode() != pdu.OpAsync || got != want {
			t.Errorf("got opcode %#02x, %+v", byte(p.BHS.Opcode()), got)
		}
		r.ExpectClosed()
		if took := <-returned; took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		if err := <-r.ended; err == nil || errors.Is(err, ErrLogout) {
			t.Errorf("ended with %v", err)
		}
	})
}

// One that takes nothing from its socket is given up soon after, and so is one
// whose commands are stuck in the device.
func TestRequestLogoutOfADeafInitiator(t *testing.T) {
	fake(t, func(t *testing.T, r *rig) {
		start := time.Now()
		r.s.RequestLogout(3 * time.Second)
		if took := time.Since(start); took != 3*time.Second+farewell {
			t.Errorf("took %v", took)
		}
		<-r.s.Done()
	})
	r := newSite(t).join(usual())
	hold := r.dev.Hold(iscsitest.WriteAt)
	r.write1(0, 1)
	hold.Await(t)
	r.s.RequestLogout(20 * time.Millisecond)
	for i, want := range []uint8{pdu.AsyncRequestLogout, pdu.AsyncDropConnection} {
		p := r.Expect(pdu.OpAsync)
		if got := pdu.ParseAsyncMessage(&p.BHS); got.Event != want {
			t.Errorf("message %d is event %d", i, got.Event)
		}
	}
	r.ExpectClosed()
	select {
	case <-r.s.Done():
		t.Error("the session ended before its write did")
	default:
	}
	hold.Release()
	<-r.s.Done()
}

// Asking a session that has ended is no harm.
func TestRequestLogoutTooLate(t *testing.T) {
	r := newSite(t).join(usual())
	r.s.Close()
	<-r.s.Done()
	r.s.RequestLogout(time.Hour)
}

// The initiator is asked for a text exchange, and told of another length in it, which
// holds from then on; a connection on which no exchange comes is dropped.
func TestRequestNegotiation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t)
		p := several()
		p.MaxRecvDataSegmentLength = 4096
		server, client := net.Pipe()
		a := st.joinOver(server, client, p)
		server, client = net.Pipe()
		b := st.connect(a.s, server, client, 8, p)
		b.Joins(a.Client)
		b.Join(seen(p))
		b.serve()
		var wg sync.WaitGroup
		wg.Go(func() { a.s.RequestNegotiation(8192, 5*time.Second) })
		for _, r := range []*rig{a, b} {
			m := r.Expect(pdu.OpAsync)
			if got := pdu.ParseAsyncMessage(&m.BHS); got != (pdu.AsyncMessage{Event: pdu.AsyncNegotiate, Parameter3: 5}) {
				t.Errorf("%+v", got)
			}
		}
		if resp, got := a.talk().say(true, false, ""); got != "MaxRecvDataSegmentLength=8192\x00" || !resp.Final {
			t.Errorf("%+v, %q", resp, got)
		}
		a.Params.MaxSendDataSegmentLength = 8192
		good(t, a.Do(iscsitest.Command{CDB: iscsitest.Write(0, 16), Out: pattern(1, 8192), Immediate: iscsitest.Most}))
		a.holds(0, pattern(1, 8192))
		start := time.Now()
		m := b.Expect(pdu.OpAsync)
		if got := pdu.ParseAsyncMessage(&m.BHS); got.Event != pdu.AsyncDropConnection || got.Parameter1 != 8 || time.Since(start) != 5*time.Second {
			t.Errorf("%+v after %v", got, time.Since(start))
		}
		b.ExpectClosed()
		wg.Wait()
		if _, got := a.talk().say(true, false, "X-a=1\x00"); got != "X-a=NotUnderstood\x00" {
			t.Errorf("said again: %q", got)
		}
	})
}
