package iscsitarget_test

import (
	"errors"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// The same initiator port once more ends its old session.
func TestReinstatement(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	old, other := r.login(1), r.login(2)
	renewed := r.login(1)
	old.ExpectClosed()
	renewed.Alive()
	other.Alive()
	if got := r.Sessions(); len(got) != 2 {
		t.Errorf("sessions %v", got)
	}
}

// While a write of the old session is in the device the new login is not
// answered: a late write must not land on what the new session wrote.
func TestReinstatementWaitsForIO(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	old := r.login(1)
	hold := r.stuck(old, 0)
	c := r.dial(1)
	done := later(t, func() error { return c.TryLogin(plain()) })
	old.ExpectClosed()
	waits(t, "the login", done)
	hold.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.Ready()
	good(t, c.Do(write(0, pattern(2, block))))
	r.holds(0, pattern(2, block))
}

// When that takes too long the login is refused, for the initiator to try again.
func TestReinstatementGivesUp(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	hold := r.stuck(r.login(1), 0)
	var refusal iscsitest.Refusal
	start := time.Now()
	if err := r.dial(1).TryLogin(plain()); !errors.As(err, &refusal) || refusal.Status != pdu.LoginServiceUnavailable {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took < iscsitarget.ReinstatementWait {
		t.Errorf("refused after %v", took)
	}
	hold.Release()
	r.login(1)
}

// A port that only knows the name, not the secret, ends nobody's session.
func TestReinstatementNeedsTheSecret(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node, CHAP: &iscsitarget.CHAP{User: "u", Secret: "a secret"}})
	good := iscsitest.Login{Initiator: node, Target: target, CHAP: &iscsitest.CHAP{User: "u", Secret: "a secret"}}
	c := r.dial(1)
	c.Login(good)
	for _, chap := range []*iscsitest.CHAP{nil, {User: "u", Secret: "wrong"}} {
		bad := good
		bad.CHAP = chap
		thief := r.dial(1)
		if err := thief.TryLogin(bad); err == nil {
			t.Error("in without the secret")
		}
	}
	c.Alive()
}

func TestMaxSessions(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	tg, err := r.AddTarget(iscsitarget.TargetConfig{Name: "iqn.small", MaxSessions: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := tg.Permit(iscsitarget.Grant{Initiator: node}); err != nil {
		t.Fatal(err)
	}
	small := iscsitest.Login{Initiator: node, Target: "iqn.small"}
	a, b := r.dial(1), r.dial(2)
	a.Login(small)
	b.Login(small)
	r.refused(pdu.LoginTooManyConnections, small)
	again := r.dial(2)
	again.Login(small) // reinstatement is no further session
	a.Alive()
	again.Alive()
}

// There is no second connection of a session to join.
func TestTSIHOfNobody(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	for _, tsih := range []uint16{c.TSIH, c.TSIH + 1, 0xffff} {
		d := r.dial(1)
		req := pdu.LoginRequest{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, TSIH: tsih}
		resp, _, err := d.LoginStep(req, []byte("InitiatorName="+node+"\x00TargetName="+target+"\x00"))
		if err == nil || resp.Status != pdu.LoginNoSession {
			t.Errorf("TSIH %d: %+v, %v", tsih, resp, err)
		}
	}
	c.Alive()
}
