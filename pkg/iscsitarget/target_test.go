package iscsitarget_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/mem"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// A target that has moved sends logins elsewhere; sessions stay.
func TestRedirect(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	for _, bad := range []string{"192.0.2.7", "host:3260", "192.0.2.7:99999", "::1:3260 "} {
		if r.target.Redirect(bad, false) == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
	for permanent, want := range map[bool]pdu.LoginStatus{false: pdu.LoginMovedTemporarily, true: pdu.LoginMovedPermanently} {
		if err := r.target.Redirect("[2001:db8::7]:3260", permanent); err != nil {
			t.Fatal(err)
		}
		r.refused(want, plain())
	}
	good(t, c.Do(write(0, pattern(1, block))))
	if n := r.Stats().LoginsRefused[iscsitarget.RefusedMoved]; n != 2 {
		t.Errorf("%d logins were redirected", n)
	}
	if err := r.target.Redirect("", false); err != nil {
		t.Fatal(err)
	}
	good(t, r.login(2).Do(write(1, pattern(1, block))))
}

// Revoke returns when the write that is in the device has returned, not before.
func TestRevokeWaitsForIO(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	hold := r.stuck(c, 0)
	done := later(t, func() error { return r.target.Revoke(within(t, time.Minute), node) })
	waits(t, "Revoke", done)
	c.ExpectClosed()
	hold.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.holds(0, pattern(1, block))
	if got := r.Sessions(); len(got) != 0 {
		t.Errorf("sessions %v", got)
	}
	r.refused(pdu.LoginNotFound, plain())
}

// Revoke returns when what the initiator wrote is on stable storage.
func TestRevokeSyncs(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	good(t, r.login(1).Do(write(0, pattern(1, block))))
	hold := r.gate.Hold(iscsitest.Sync)
	t.Cleanup(hold.Release)
	done := later(t, func() error { return r.target.Revoke(within(t, time.Minute), node) })
	hold.Await(t)
	waits(t, "Revoke", done)
	hold.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A Revoke whose context ends has closed the door already; the next call waits
// for the rest. Until then nobody is let in by a new grant either: the old
// grant's write is still under way.
func TestRevokeGivenUp(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	secret := func(s string) iscsitarget.Grant {
		return iscsitarget.Grant{Initiator: node, CHAP: &iscsitarget.CHAP{User: "u", Secret: s}}
	}
	as := func(s string) iscsitest.Login {
		return iscsitest.Login{Initiator: node, Target: target, CHAP: &iscsitest.CHAP{User: "u", Secret: s}}
	}
	r.permit(secret("first secret"))
	r.permit(iscsitarget.Grant{CHAP: &iscsitarget.CHAP{User: "u", Secret: "anybody's secret"}})
	c := r.dial(1)
	c.Login(as("first secret"))
	c.Ready()
	hold := r.stuck(c, 0)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.target.Revoke(gone, node); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	r.refused(pdu.LoginAuthFailure, as("first secret"))
	r.refused(pdu.LoginServiceUnavailable, as("anybody's secret"))
	if err := r.target.Permit(secret("second secret")); !errors.Is(err, iscsitarget.ErrFencing) {
		t.Errorf("Permit while fencing: %v", err)
	}
	if err := r.target.Revoke(within(t, soon), node); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second Revoke: %v", err)
	}
	hold.Release()
	if err := r.target.Revoke(within(t, time.Minute), node); err != nil {
		t.Fatal(err)
	}
	r.permit(secret("second secret"))
	c = r.dial(2)
	c.Login(as("second secret"))
	c.Ready()
	r.refused(pdu.LoginAuthFailure, as("first secret"))
}

// A fence that failed while nobody waited tells the next caller, once.
func TestRevokeErrorIsKept(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	hold := r.stuck(c, 0)
	if err := r.target.Revoke(within(t, soon), node); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	lost := errors.New("the disk is gone")
	r.disk.FailSync(lost)
	hold.Release()
	eventually(t, "the session's end", func() bool { return len(r.Sessions()) == 0 })
	if err := r.target.Revoke(within(t, time.Minute), node); err == nil {
		t.Error("a fence without a flush is no error")
	}
}

func TestRevokeOfNothing(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	for _, name := range []string{node, "", "iqn.never.seen", "no name"} {
		if err := r.target.Revoke(within(t, time.Minute), name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Revoke leaves the sessions of others alone, and compares names as they are
// written in the standard: without case.
func TestRevokeOfOne(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	r.permit(iscsitarget.Grant{Initiator: node + "2"})
	a := r.login(1)
	b := r.dial(1)
	b.Login(iscsitest.Login{Initiator: node + "2", Target: target})
	b.Ready()
	if err := r.target.Revoke(within(t, time.Minute), strings.ToUpper(node)); err != nil {
		t.Fatal(err)
	}
	a.ExpectClosed()
	good(t, b.Do(write(0, pattern(1, block))))
}

// The grant for any name is revoked with the sessions that rest on it.
func TestRevokeOfAnyName(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{})
	r.permit(iscsitarget.Grant{Initiator: "iqn.of.its.own"})
	a := r.login(1)
	b := r.dial(1)
	b.Login(iscsitest.Login{Initiator: "iqn.of.its.own", Target: target})
	if err := r.target.Revoke(within(t, time.Minute), ""); err != nil {
		t.Fatal(err)
	}
	a.ExpectClosed()
	b.Alive()
	r.refused(pdu.LoginNotFound, plain())
}

// However a login races with Revoke, no session is left when Revoke returns, and
// nothing lands afterwards.
func TestRevokeRacesWithLogins(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	for round := range 15 {
		r.permit(iscsitarget.Grant{Initiator: node})
		var wg sync.WaitGroup
		stop := make(chan struct{})
		var in sync.Once
		entered := make(chan struct{})
		for port := range byte(6) {
			wg.Go(func() {
				for i := byte(0); ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					c := iscsitest.New(r.TB, mustDial(r))
					c.ISID[5] = port
					if c.TryLogin(plain()) == nil {
						in.Do(func() { close(entered) })
						for range 3 {
							_, _ = c.TryDo(write(int(port), pattern(i, block)))
						}
					}
					_ = c.Close()
				}
			})
		}
		<-entered
		if err := r.target.Revoke(within(t, time.Minute), node); err != nil {
			t.Fatal(err)
		}
		if got := r.Sessions(); len(got) != 0 {
			t.Fatalf("round %d: sessions %v", round, got)
		}
		before, after := make([]byte, 6*block), make([]byte, 6*block)
		_, _ = r.disk.ReadAt(before, 0)
		waits(t, "nothing", nil)
		_, _ = r.disk.ReadAt(after, 0)
		if !bytes.Equal(before, after) || len(r.Sessions()) != 0 {
			t.Fatalf("round %d: a write landed after the fence", round)
		}
		close(stop)
		wg.Wait()
	}
}

func TestPermitInvalid(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	for name, g := range map[string]iscsitarget.Grant{
		"name":      {Initiator: "fred"},
		"blank":     {Initiator: "iqn.a b"},
		"no user":   {Initiator: node, CHAP: &iscsitarget.CHAP{Secret: "s"}},
		"no secret": {Initiator: node, CHAP: &iscsitarget.CHAP{User: "u"}},
		"same":      {Initiator: node, CHAP: &iscsitarget.CHAP{User: "u", Secret: "hush", MutualUser: "m", MutualSecret: "hush"}},
	} {
		err := r.target.Permit(g)
		if !errors.Is(err, iscsitarget.ErrInvalid) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.refused(pdu.LoginNotFound, plain())
}

// A grant that is replaced lets live sessions go on, and nobody in with the old
// secret.
func TestPermitReplaces(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	login := plain()
	for i := range 3 {
		secret := fmt.Sprintf("secret %d", i)
		r.permit(iscsitarget.Grant{Initiator: strings.ToUpper(node), CHAP: &iscsitarget.CHAP{User: "u", Secret: secret, StageNonce: true, MutualUser: "t", MutualSecret: "mutual"}})
		if i > 0 {
			r.refused(pdu.LoginAuthFailure, login)
		}
		login.CHAP = &iscsitest.CHAP{User: "u+1", Secret: secret, Algorithm: "7", Mutual: true, MutualUser: "t", MutualSecret: "mutual"}
		c := r.dial(byte(i))
		c.Login(login)
		c.Ready()
		defer c.Alive()
	}
}

func TestReadOnlyGrant(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node, ReadOnly: true})
	c := r.login(1)
	if got := c.Do(write(0, pattern(1, block))); got.SenseCode() != 0x072700 {
		t.Errorf("got %v", got)
	}
	r.holds(0, make([]byte, block))
	good(t, c.Do(iscsitest.Command{CDB: iscsitest.Read(0, 1), In: block}))
}

func TestAddLUN(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	other, _ := mem.New(1<<20, 4096)
	cfg := iscsitarget.LUNConfig{Device: other}
	if err := r.target.AddLUN(0, cfg); err == nil {
		t.Error("LUN 0 is taken")
	}
	if err := r.target.AddLUN(16384, cfg); err == nil {
		t.Error("LUN 16384")
	}
	if err := r.target.AddLUN(3, cfg); err != nil {
		t.Fatal(err)
	}
	if got := c.Do(iscsitest.Command{CDB: iscsitest.TestUnitReady()}); got.SenseCode() != 0x063f0e {
		t.Errorf("no unit attention for a new unit: %v", got)
	}
	if got := c.Do(iscsitest.Command{CDB: iscsitest.ReportLUNs(256), In: 256}); len(got.Data) != 8+2*8 {
		t.Errorf("%d bytes of LUNs", len(got.Data))
	}
	if err := other.Grow(2 << 20); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_ = c.Do(iscsitest.Command{LUN: iscsitest.LUN(3), CDB: iscsitest.TestUnitReady()})
	}
	r.target.CapacityChanged(3)
	r.target.CapacityChanged(77)
	if got := c.Do(iscsitest.Command{LUN: iscsitest.LUN(3), CDB: iscsitest.TestUnitReady()}); got.SenseCode() != 0x062a09 {
		t.Errorf("no unit attention for more capacity: %v", got)
	}
}

// A unit that cannot be made durable for the sessions there are holds up neither
// logins elsewhere nor the listing of sessions.
func TestAddLUNThatStalls(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	c := r.login(1)
	slow := &slowMark{Device: r.mem(), entered: make(chan struct{}), open: make(chan struct{})}
	done := later(t, func() error {
		return r.target.AddLUN(1, iscsitarget.LUNConfig{Device: slow, WriteCache: true})
	})
	<-slow.entered
	c.Alive()
	if got := r.Sessions(); len(got) != 1 {
		t.Errorf("sessions %v", got)
	}
	d := r.dial(5)
	d.Login(iscsitest.Login{Initiator: node})
	close(slow.open)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func mustDial(r *rig) net.Conn {
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.Fatal(err)
	}
	return conn
}

func TestRenegotiate(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	for _, n := range []uint32{0, 511, 1 << 24} {
		if err := r.target.Renegotiate(n, time.Second); !errors.Is(err, iscsitarget.ErrInvalid) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	c := r.login(1)
	done := make(chan error, 1)
	go func() { done <- r.target.Renegotiate(1024, iscsitest.Timeout) }()
	c.Expect(pdu.OpAsync)
	c.Send(pdu.TextRequest{Final: true, Immediate: true, ITT: c.ITT(), TTT: pdu.NoTag, CmdSN: c.CmdSN, ExpStatSN: c.ExpStatSN}.Header(), nil)
	if p := c.Expect(pdu.OpTextResponse); string(p.Data) != "MaxRecvDataSegmentLength=1024\x00" {
		t.Errorf("%q", p.Data)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
