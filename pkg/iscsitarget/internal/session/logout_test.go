package session

import (
	"errors"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

func (r *rig) logout(reason uint8, cid uint16) uint32 {
	itt := r.ITT()
	r.Send(pdu.LogoutRequest{Immediate: true, Reason: reason, CID: cid, ITT: itt, CmdSN: r.CmdSN, ExpStatSN: r.ExpStatSN}.Header(), nil)
	return itt
}

func TestLogout(t *testing.T) {
	for _, tt := range []struct {
		name     string
		reason   uint8
		cid      uint16
		response uint8
		wait     uint16
		ends     bool
	}{
		{"session", pdu.LogoutCloseSession, 0, logoutClosed, 0, true},
		{"session, any CID", pdu.LogoutCloseSession, 99, logoutClosed, 0, true},
		{"connection", pdu.LogoutCloseConnection, 7, logoutClosed, 0, true},
		{"another connection", pdu.LogoutCloseConnection, 8, logoutNoCID, 0, false},
		{"recovery", pdu.LogoutForRecovery, 7, logoutNoRecovery, 2, false},
		{"recovery of another connection", pdu.LogoutForRecovery, 8, logoutNoRecovery, 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newSite(t).join(usual())
			itt := r.logout(tt.reason, tt.cid)
			p := r.Expect(pdu.OpLogoutResponse)
			if got := pdu.ParseLogoutResponse(&p.BHS); got != (pdu.LogoutResponse{Response: tt.response, ITT: itt, Time2Wait: tt.wait}) {
				t.Fatalf("got %+v", got)
			}
			if !tt.ends {
				r.Alive()
				return
			}
			r.ExpectClosed()
			if err := <-r.ended; !errors.Is(err, ErrLogout) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// A discovery session takes the close of the session alone (RFC 7143 section 4.3).
func TestLogoutOfDiscovery(t *testing.T) {
	r := newSite(t).join(usual(), func(i *Info) { i.Discovery = true })
	for _, reason := range []uint8{pdu.LogoutCloseConnection, pdu.LogoutForRecovery, 3} {
		r.logout(reason, 7)
		if p := r.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != pdu.RejectProtocolError {
			t.Errorf("reason %#02x", pdu.ParseReject(&p.BHS).Reason)
		}
	}
	r.logout(pdu.LogoutCloseSession, 0)
	r.Expect(pdu.OpLogoutResponse)
	r.ExpectClosed()
}

// A numbered logout waits for its turn, and ends the commands before it.
func TestLogoutInTurn(t *testing.T) {
	r := newSite(t).join(usual())
	first := r.CmdSN
	r.Send(pdu.LogoutRequest{ITT: r.ITT(), CmdSN: first + 1}.Header(), nil)
	r.silent()
	r.Send(r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}, r.ITT()).Header(), pattern(1, block))
	r.CmdSN += 2
	var got []pdu.Opcode
	for _, p := range r.ExpectClosed() {
		got = append(got, p.BHS.Opcode())
	}
	// The write may have ended before the logout, or was ended by it.
	if n := len(got); n == 0 || got[n-1] != pdu.OpLogoutResponse || n == 2 && got[0] != pdu.OpSCSIResponse || n > 2 {
		t.Errorf("got %#02x", got)
	}
	if err := <-r.ended; !errors.Is(err, ErrLogout) {
		t.Errorf("ended with %v", err)
	}
}

func TestLogoutForNoReason(t *testing.T) {
	r := newSite(t).join(usual())
	r.logout(3, 7)
	r.Expect(pdu.OpReject)
	r.Alive()
}

// Logout waits for what is in the device, ends what waits for data, and takes
// nothing new meanwhile.
func TestLogoutWithIOUnderWay(t *testing.T) {
	r := newSite(t).join(usual())
	hold := r.dev.Hold(iscsitest.WriteAt)
	r.write1(0, 1)
	hold.Await(t)
	r.WaitR2T(r.Start(iscsitest.Command{CDB: iscsitest.Write(1, 1), Out: pattern(2, block), Hold: true}))
	out := r.logout(pdu.LogoutCloseSession, 0)
	r.silent()
	for range 100 {
		r.logout(pdu.LogoutCloseSession, 0)
		r.Expect(pdu.OpReject)
	}
	r.Send(r.Header(iscsitest.Command{CDB: iscsitest.Write(5, 1), Out: pattern(3, block)}, r.ITT()).Header(), pattern(3, block))
	r.CmdSN++
	r.Expect(pdu.OpReject)
	hold.Release()
	if p := r.Expect(pdu.OpLogoutResponse); p.BHS.ITT() != out {
		t.Errorf("answer to %#x", p.BHS.ITT())
	}
	r.ExpectClosed()
	r.holds(5, make([]byte, block))
}
