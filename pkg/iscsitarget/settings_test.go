package iscsitarget_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// configure gives the rig's target settings.
func (r *rig) configure(s iscsitarget.TargetSettings) {
	r.Helper()
	if err := r.target.Configure(s); err != nil {
		r.Fatal(err)
	}
}

// isPort says whether a session is of the initiator port of that number (see dial).
func isPort(s iscsitarget.SessionStatus, port byte) bool {
	return strings.HasSuffix(s.ISID, fmt.Sprintf("%02x", port))
}

// Parameters hold for logins from then on, and for no session that there is.
func TestSessionParameters(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{})
	before := r.login(1)
	p := iscsitarget.DefaultSessionParameters()
	p.InitialR2T, p.ImmediateData = true, false
	p.MaxBurstLength, p.FirstBurstLength, p.MaxRecvDataSegmentLength, p.MaxXmitDataSegmentLength = 4096, 512, 1024, 512
	p.MaxOutstandingR2T, p.DefaultTime2Wait, p.DefaultTime2Retain, p.ErrorRecoveryLevel = 3, 7, 9, 0
	p.MaxConnections, p.HeaderDigest, p.DataDigest, p.QueuedCommands, p.Workers = 1, false, false, 2, 1
	r.configure(iscsitarget.TargetSettings{Sessions: &p})
	after := r.login(2)
	data := pattern(3, 16*block)
	for _, c := range []*iscsitest.Client{before, after} {
		good(t, c.Do(write(8, data)))
		got := c.Do(iscsitest.Command{CDB: iscsitest.Read(8, 16), In: uint32(len(data))})
		good(t, got)
		if !slices.Equal(got.Data, data) {
			t.Error("read back something else")
		}
		if c == after && got.DataIns != len(data)/p.MaxXmitDataSegmentLength {
			t.Errorf("%d bytes came in %d segments", len(data), got.DataIns)
		}
	}
	if room := after.MaxCmdSN - after.CmdSN + 1; room != 2 {
		t.Errorf("the command window is %d wide", room)
	}
	for _, s := range r.Sessions() {
		n := s.Negotiated
		switch {
		case isPort(s, 1):
			if n.MaxBurstLength == 4096 || n.InitialR2T {
				t.Errorf("the session from before has %+v", n)
			}
		default:
			if n.MaxBurstLength != 4096 || n.FirstBurstLength != 512 || n.MaxRecvDataSegmentLength != 1024 || !n.InitialR2T || n.ImmediateData {
				t.Errorf("the new session has %+v", n)
			}
		}
	}
}

func TestSessionParametersOutOfRange(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	for name, spoil := range map[string]func(*iscsitarget.SessionParameters){
		"MaxRecvDataSegmentLength": func(p *iscsitarget.SessionParameters) { p.MaxRecvDataSegmentLength = iscsitarget.MaxSegment + 1 },
		"FirstBurstLength":         func(p *iscsitarget.SessionParameters) { p.FirstBurstLength = 1 << 20 },
		"QueuedCommands":           func(p *iscsitarget.SessionParameters) { p.QueuedCommands = 0 },
		"MaxConnections":           func(p *iscsitarget.SessionParameters) { p.MaxConnections = -1 },
	} {
		p := iscsitarget.DefaultSessionParameters()
		spoil(&p)
		if err := r.target.Configure(iscsitarget.TargetSettings{Sessions: &p}); !errors.Is(err, iscsitarget.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.target.Configure(iscsitarget.TargetSettings{Alias: "a\x00SendTargets=All"}); !errors.Is(err, iscsitarget.ErrInvalid) {
		t.Errorf("alias: %v", err)
	}
}

// Who is not admitted cannot tell the target from one that is not there, neither by a
// login, nor in discovery, nor by a redirection.
func TestAdmit(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{})
	var mu sync.Mutex
	var seen []iscsitarget.Visitor
	r.configure(iscsitarget.TargetSettings{Admit: func(v iscsitarget.Visitor) bool {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, v)
		return v.Initiator != node+"2"
	}})
	r.login(1).Alive()
	stranger := iscsitest.Login{Initiator: node + "2", Target: target}
	for who, want := range map[string]string{node: "TargetName=" + target + ";TargetAddress=" + r.addr + ",1;", node + "2": ""} {
		c := r.dial(7)
		c.Login(iscsitest.Login{Initiator: who})
		if got := ask(c, "All"); got != want {
			t.Errorf("%s is told of %q", who, got)
		}
	}
	r.refused(pdu.LoginNotFound, stranger)
	if err := r.target.Redirect("192.0.2.1:3260", false); err != nil {
		t.Fatal(err)
	}
	r.refused(pdu.LoginNotFound, stranger)
	r.refused(pdu.LoginMovedTemporarily, plain())
	loopback := netip.MustParseAddr("127.0.0.1")
	mu.Lock()
	defer mu.Unlock()
	if v := seen[0]; v.Initiator != node || v.Remote.Addr() != loopback || v.Local.String() != r.addr {
		t.Errorf("asked about %+v", v)
	}
}

// SendTargets gives a target's own portals, and a login its alias.
func TestPortalsAndAlias(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{})
	r.configure(iscsitarget.TargetSettings{Alias: "the disk", Portals: func(local netip.AddrPort) []string {
		return []string{local.String(), "[2001:db8::1]:3260"}
	}})
	c := r.dial(1)
	c.Login(iscsitest.Login{Initiator: node})
	if got, want := ask(c, "All"), "TargetName="+target+";TargetAddress="+r.addr+",1;TargetAddress=[2001:db8::1]:3260,1;"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

// A unit that is taken away under I/O: what runs comes to its end, the next command
// finds none, other units go on.
func TestRemoveLUN(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{})
	c := r.login(1)
	hold := r.gate.Hold(iscsitest.WriteAt)
	tag := c.Start(write(0, pattern(1, block)))
	hold.Await(t)

	ctx, cancel := context.WithCancel(t.Context())
	removed := make(chan error, 1)
	go func() { removed <- r.target.RemoveLUN(ctx, 0) }()
	other := r.dial(2)
	other.Login(plain())
	cancel()
	if err := <-removed; !errors.Is(err, context.Canceled) {
		t.Fatalf("removed with a write in the device: %v", err)
	}
	hold.Release()
	good(t, c.Wait(tag))
	if err := r.target.RemoveLUN(t.Context(), 0); err != nil && !errors.Is(err, iscsitarget.ErrLUNNotFound) {
		t.Fatal(err)
	}
	if got := c.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}); got.SenseCode() != 0x052500 {
		t.Errorf("a command for what is gone: %v", got)
	}
	if err := r.target.RemoveLUN(t.Context(), 0); !errors.Is(err, iscsitarget.ErrLUNNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if err := r.target.AddLUN(0, iscsitarget.LUNConfig{Device: r.gate, Vendor: "V", Product: "P", Serial: "S"}); err != nil {
		t.Fatal(err)
	}
	c.Ready()
	good(t, c.Do(iscsitest.Command{CDB: iscsitest.Read(0, 1), In: block}))
}

// Accounts come and go: who has none any more is out, nobody else notices.
func TestSetGrants(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	account := func(user, secret string) iscsitarget.Grant {
		return iscsitarget.Grant{CHAP: &iscsitarget.CHAP{User: user, Secret: secret}}
	}
	set := func(grants ...iscsitarget.Grant) {
		t.Helper()
		if err := r.target.SetGrants(t.Context(), grants); err != nil {
			t.Fatal(err)
		}
	}
	as := func(user, secret string) iscsitest.Login {
		l := plain()
		l.CHAP = &iscsitest.CHAP{User: user, Secret: secret}
		return l
	}
	set(iscsitarget.Grant{})
	open := r.login(1)
	set(account("joe", "secret-of-joe"), account("jim", "secret-of-jim"))
	r.refused(pdu.LoginAuthFailure, plain())
	joe, jim := r.dial(2), r.dial(3)
	joe.Login(as("joe", "secret-of-joe"))
	jim.Login(as("jim", "secret-of-jim"))
	set(account("jim", "another-secret"))
	joe.ExpectClosed()
	r.refused(pdu.LoginAuthFailure, as("joe", "secret-of-joe"))
	r.refused(pdu.LoginAuthFailure, as("jim", "secret-of-jim"))
	jim.Alive()
	open.Alive()
	again := r.dial(4)
	again.Login(as("jim", "another-secret"))
	again.Alive()
	set(account("joe", "secret-of-joe"))
	jim.ExpectClosed()
	again.ExpectClosed()
}

func TestDisconnect(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{})
	c, other := r.login(1), r.login(2)
	for _, s := range r.Sessions() {
		if isPort(s, 1) {
			r.target.Disconnect(iscsitarget.SID{ISID: c.ISID, TSIH: s.TSIH}, s.Connections[0].CID)
		}
	}
	c.ExpectClosed()
	other.Alive()
}
