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
		ends     bool
	}{
		{"session", pdu.LogoutCloseSession, 0, logoutClosed, true},
		{"session, any CID", pdu.LogoutCloseSession, 99, logoutClosed, true},
		{"connection", pdu.LogoutCloseConnection, 7, logoutClosed, true},
		{"another connection", pdu.LogoutCloseConnection, 8, logoutNoCID, false},
		{"recovery", pdu.LogoutForRecovery, 7, logoutNoRecovery, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newSite(t).join(usual())
			itt := r.logout(tt.reason, tt.cid)
			p := r.Expect(pdu.OpLogoutResponse)
			if got := pdu.ParseLogoutResponse(&p.BHS); got.Response != tt.response || got.ITT != itt {
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
