package iscsitarget_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// ask asks for targets in a session and returns the answer.
func ask(c *iscsitest.Client, what string) string {
	h := pdu.TextRequest{Immediate: true, Final: true, ITT: c.ITT(), TTT: pdu.NoTag, CmdSN: c.CmdSN}.Header()
	c.Send(h, []byte("SendTargets="+what+"\x00"))
	p := c.Expect(pdu.OpTextResponse)
	return strings.ReplaceAll(string(p.Data), "\x00", ";")
}

// An initiator is told of the targets that it may log in to, and of no others.
func TestDiscovery(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.addTarget("iqn.not.yours")
	mine := "TargetName=" + target + ";TargetAddress=" + r.addr + ",1;"
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.dial(1)
	c.Login(iscsitest.Login{Initiator: strings.ToUpper(node)})
	for what, want := range map[string]string{"All": mine, target: mine, strings.ToUpper(target): mine, "iqn.not.yours": "", "": "SendTargets=Reject;"} {
		if got := ask(c, what); got != want {
			t.Errorf("%q: %s", what, got)
		}
	}
	stranger := r.dial(1)
	stranger.Login(iscsitest.Login{Initiator: "iqn.stranger"})
	if got := ask(stranger, "All"); got != "" {
		t.Errorf("a stranger is told %s", got)
	}
	normal := r.login(1)
	for what, want := range map[string]string{"": mine, target: mine, "All": "SendTargets=Reject;"} {
		if got := ask(normal, what); got != want {
			t.Errorf("normal session, %q: %s", what, got)
		}
	}
}

func TestPortals(t *testing.T) {
	r := newRig(t, iscsitarget.Options{Portals: []string{"192.0.2.1:3260", "[2001:db8::1]:3260"}})
	r.permit(iscsitarget.Grant{})
	c := r.dial(1)
	c.Login(iscsitest.Login{Initiator: node})
	if got, want := ask(c, "All"), "TargetName="+target+";TargetAddress=192.0.2.1:3260,1;TargetAddress=[2001:db8::1]:3260,1;"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestDiscoveryCHAP(t *testing.T) {
	r := newRig(t, iscsitarget.Options{DiscoveryCHAP: []iscsitarget.CHAP{{User: "d", Secret: "hush"}}})
	r.permit(iscsitarget.Grant{Initiator: node})
	r.refused(pdu.LoginAuthFailure, iscsitest.Login{Initiator: node})
	r.refused(pdu.LoginAuthFailure, iscsitest.Login{Initiator: node, Direct: true})
	c := r.dial(1)
	c.Login(iscsitest.Login{Initiator: node, CHAP: &iscsitest.CHAP{User: "d", Secret: "hush"}})
	if got := ask(c, "All"); got == "" {
		t.Error("no targets")
	}
	r.login(1) // normal sessions have their own credentials
}

// A target that is not there and one that is not permitted look the same.
func TestTargetsAreNotProbed(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	r.refused(pdu.LoginNotFound, iscsitest.Login{Initiator: "iqn.stranger", Target: target})
	r.refused(pdu.LoginNotFound, iscsitest.Login{Initiator: "iqn.stranger", Target: "iqn.nowhere"})
	r.refused(pdu.LoginNotFound, iscsitest.Login{Initiator: node, Target: "iqn.nowhere"})
}

// A login that never ends does, at LoginTimeout: one that says nothing, and one
// that says something now and then.
func TestLoginTimeout(t *testing.T) {
	r := newRig(t, iscsitarget.Options{LoginTimeout: 300 * time.Millisecond})
	r.permit(iscsitarget.Grant{Initiator: node})
	silent, slow := r.dial(1), r.dial(2)
	stop := make(chan struct{})
	done := later(t, func() error {
		for {
			select {
			case <-stop:
				return nil
			case <-time.After(10 * time.Millisecond):
				if slow.SendRaw([]byte{0x43}) != nil {
					<-stop // closed in our face, as it should be
				}
			}
		}
	})
	start := time.Now()
	silent.ExpectClosed()
	slow.ExpectClosed()
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < 200*time.Millisecond || took > 10*time.Second {
		t.Errorf("closed after %v", took)
	}
	c := r.login(1)
	waits(t, "nothing", nil)
	<-time.After(400 * time.Millisecond)
	c.Alive() // the login's deadline is not the session's
}

// A login byte by byte is a login.
func TestSlowLogin(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.dial(1)
	h := pdu.LoginRequest{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, ISID: c.ISID, CmdSN: c.CmdSN, ExpStatSN: c.ExpStatSN}.Header()
	for _, b := range iscsitest.Encode(h, []byte("InitiatorName="+node+"\x00TargetName="+target+"\x00")) {
		if err := c.SendRaw([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if resp, _, err := c.LoginAnswer(); err != nil || resp.TSIH == 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
}

// What comes in one segment with the login's last request is the session's.
func TestBytesRightBehindTheLogin(t *testing.T) {
	for name, junk := range map[string][]byte{
		"a ping":  iscsitest.Encode(pdu.NopOut{Immediate: true, ITT: 5, TTT: pdu.NoTag, CmdSN: 1}.Header(), []byte("hi")),
		"junk":    []byte(strings.Repeat("\xff", 5000)),
		"a login": iscsitest.Encode(pdu.LoginRequest{CSG: 1}.Header(), nil),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, iscsitarget.Options{})
			r.permit(iscsitarget.Grant{Initiator: node})
			bystander := r.login(9)
			c := r.dial(1)
			h := pdu.LoginRequest{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, ISID: c.ISID, CmdSN: c.CmdSN, ExpStatSN: c.ExpStatSN}.Header()
			all := append(iscsitest.Encode(h, []byte("InitiatorName="+node+"\x00TargetName="+target+"\x00")), junk...)
			if err := c.SendRaw(all); err != nil {
				t.Fatal(err)
			}
			if name == "a ping" {
				if _, _, err := c.LoginAnswer(); err != nil {
					t.Fatal(err)
				}
				if p := c.Expect(pdu.OpNopIn); string(p.Data) != "hi" {
					t.Errorf("%q", p.Data)
				}
			} else {
				c.ExpectClosed()
			}
			good(t, bystander.Do(write(0, pattern(1, block))))
		})
	}
}

// A peer that vanishes is noticed by our own ping.
func TestDeadPeerIsReaped(t *testing.T) {
	r := newRig(t, iscsitarget.Options{NopInterval: 50 * time.Millisecond, NopTimeout: 50 * time.Millisecond})
	r.permit(iscsitarget.Grant{Initiator: node})
	dead, live := r.login(1), r.login(2)
	dead.MutePings = true
	done := later(t, func() error {
		for len(r.Sessions()) > 1 {
			if err := live.Ping(time.Second); err != nil {
				return err
			}
		}
		return nil
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	live.Alive()
	_ = dead.SetDeadline(time.Now())
}

var _ net.Conn = (*iscsitest.Client)(nil)
