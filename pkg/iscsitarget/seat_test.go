package iscsitarget_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
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
	tg, err := r.AddTarget(iscsitarget.TargetConfig{Name: "iqn.small", TargetSettings: iscsitarget.TargetSettings{MaxSessions: 2}})
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

// A login for a session that is not there, or is another's, gets none.
func TestTSIHOfNobody(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	r.permit(iscsitarget.Grant{Initiator: node + "2"})
	c := r.login(1)
	for _, tt := range []struct {
		initiator string
		port      byte
		tsih      uint16
		more      string
	}{
		{node, 1, c.TSIH + 1, ""},
		{node, 1, 0xffff, ""},
		{node, 2, c.TSIH, ""},       // another initiator port
		{node + "2", 1, c.TSIH, ""}, // another initiator
		{node, 1, c.TSIH, "SessionType=Discovery\x00"},
	} {
		d := r.dial(tt.port)
		req := pdu.LoginRequest{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, TSIH: tt.tsih}
		resp, _, err := d.LoginStep(req, []byte("InitiatorName="+tt.initiator+"\x00TargetName="+target+"\x00"+tt.more))
		if err == nil || resp.Status != pdu.LoginNoSession {
			t.Errorf("%+v: %+v, %v", tt, resp, err)
		}
	}
	c.Alive()
}

// another logs in for another connection of a session.
func (r *rig) another(leading *iscsitest.Client, cid uint16, keys ...string) (*iscsitest.Client, error) {
	r.Helper()
	c := iscsitest.Dial(r.TB, r.addr)
	c.Joins(leading)
	c.CID = cid
	return c, c.TryLogin(iscsitest.Login{Initiator: node, Target: target, Keys: iscsitest.With(keys...)})
}

// A session has as many connections as were negotiated for its leading one, which
// settles everything but digests and lengths.
func TestSeveralConnections(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	a := r.dial(1)
	a.Login(iscsitest.Login{Initiator: node, Target: target, Keys: iscsitest.With("MaxConnections=3", "ImmediateData=No")})
	a.Ready()
	b, err := r.another(a, 5, "HeaderDigest=CRC32C", "DataDigest=CRC32C", "MaxRecvDataSegmentLength=4096", "ImmediateData=Yes", "MaxConnections=100")
	if err != nil {
		t.Fatal(err)
	}
	if b.TSIH != a.TSIH {
		t.Errorf("TSIH %d, want %d", b.TSIH, a.TSIH)
	}
	data := pattern(3, 64<<10)
	b.Params.ImmediateData = false // as the leading connection has it
	if got := b.Do(iscsitest.Command{CDB: iscsitest.Write(0, 128), Out: data}); got.Status != 0 {
		t.Fatal(got)
	}
	for _, c := range []*iscsitest.Client{a, b} {
		if got := c.Do(iscsitest.Command{CDB: iscsitest.Read(0, 128), In: 64 << 10}); got.Status != 0 || !bytes.Equal(got.Data, data) {
			t.Fatalf("connection %d: %v", c.CID, got)
		}
	}
	if _, err := r.another(a, 6); err != nil {
		t.Fatal(err)
	}
	var refusal iscsitest.Refusal
	if _, err := r.another(a, 7); !errors.As(err, &refusal) || refusal.Status != pdu.LoginTooManyConnections {
		t.Errorf("a fourth connection: %v", err)
	}
	all := r.Sessions()
	if len(all) != 1 || len(all[0].Connections) != 3 || !all[0].Connections[1].HeaderDigest || all[0].Connections[0].HeaderDigest {
		t.Errorf("sessions %+v", all)
	}
	if err := r.target.Revoke(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	a.ExpectClosed()
	b.ExpectClosed()
}

// What is settled for the session is irrelevant on its further connections.
func TestLeadingOnlyKeys(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	a := r.dial(1)
	a.Login(iscsitest.Login{Initiator: node, Target: target, Keys: iscsitest.With("MaxConnections=2")})
	b := iscsitest.Dial(t, r.addr)
	b.Joins(a)
	b.CID = 2
	req := pdu.LoginRequest{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature}
	keys := []string{"MaxConnections=8", "InitialR2T=Yes", "ImmediateData=Yes", "MaxBurstLength=4096", "FirstBurstLength=4096", "MaxOutstandingR2T=2", "DefaultTime2Wait=1",
		"DefaultTime2Retain=1", "ErrorRecoveryLevel=0", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes", "TaskReporting=RFC3720", "iSCSIProtocolLevel=1"}
	_, pairs, err := b.LoginStep(req, []byte("InitiatorName="+node+"\x00TargetName="+target+"\x00"+strings.Join(keys, "\x00")+"\x00HeaderDigest=None\x00"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		key, _, _ := strings.Cut(k, "=")
		if v, _ := text.Get(pairs, key); v != text.Irrelevant {
			t.Errorf("%s=%s", key, v)
		}
	}
	if v, _ := text.Get(pairs, "HeaderDigest"); v != "None" {
		t.Errorf("HeaderDigest=%s", v)
	}
}

// A connection takes the place of the one with its CID, which needs the secret, too.
func TestConnectionReinstatement(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node, CHAP: &iscsitarget.CHAP{User: "u", Secret: "a secret"}})
	login := iscsitest.Login{Initiator: node, Target: target, CHAP: &iscsitest.CHAP{User: "u", Secret: "a secret"}}
	a := r.dial(1)
	a.Login(login)
	a.Ready()
	if _, err := r.another(a, 0); err == nil {
		t.Error("in without the secret")
	}
	a.Alive()
	b := iscsitest.Dial(t, r.addr)
	b.Joins(a)
	b.Login(login)
	a.ExpectClosed()
	b.Alive()
}

// A session that has lost its only connection is there for another one, at error
// recovery level 2; a fence does not wait for it.
func TestSessionIsRecovered(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	login := iscsitest.Login{Initiator: node, Target: target, Keys: iscsitest.With("ErrorRecoveryLevel=2", "DefaultTime2Retain=20")}
	a := r.dial(1)
	a.Login(login)
	a.Ready()
	data := pattern(3, 64<<10)
	itt := a.Start(iscsitest.Command{CDB: iscsitest.Write(0, 128), Out: data, Hold: true})
	a.WaitR2T(itt)
	_ = a.Close()
	b := iscsitest.Dial(t, r.addr)
	b.Joins(a)
	b.Login(login)
	sn := b.TakeOver(a, itt)
	b.Send(pdu.TaskManagement{Immediate: true, Function: pdu.TaskReassign, ITT: b.ITT(), RefTaskTag: itt, CmdSN: b.CmdSN, ExpStatSN: b.ExpStatSN, ExpDataSN: sn}.Header(), nil)
	if p := b.Until(pdu.OpTaskManagementResponse); pdu.ParseTaskManagementResponse(&p.BHS).Response != pdu.TMFComplete {
		t.Fatalf("% x", p.BHS[:])
	}
	b.Serve(b.WaitR2T(itt))
	if got := b.Wait(itt); got.Status != 0 {
		t.Fatal(got)
	}
	r.holds(0, data)
	_ = b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := r.target.Revoke(ctx, node); err != nil {
		t.Error(err)
	}
	if all := r.Sessions(); len(all) != 0 {
		t.Errorf("sessions %+v", all)
	}
}

// A new session of the same port ends the one that waits to be recovered, and so does
// the end of the server.
func TestLostSessionIsReinstated(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	login := iscsitest.Login{Initiator: node, Target: target, Keys: iscsitest.With("ErrorRecoveryLevel=2", "DefaultTime2Retain=20")}
	for range 3 {
		a := r.dial(1)
		a.Login(login)
		a.Ready()
		a.WaitR2T(a.Start(iscsitest.Command{CDB: iscsitest.Write(0, 128), Out: pattern(3, 64<<10), Hold: true}))
		_ = a.Close()
	}
}
