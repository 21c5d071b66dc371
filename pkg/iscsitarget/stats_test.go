package iscsitarget_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// TestStatsOfATarget: traffic counts while a session is there and stays when it
// has gone.
func TestStatsOfATarget(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	eventually(t, "Serve to begin", func() bool { return r.Stats().Listeners == 1 })
	quiet := r.Stats()
	if len(quiet.Targets) != 1 || quiet.Targets[0] != (iscsitarget.TargetStats{Name: target}) {
		t.Fatalf("before anything: %+v", quiet)
	}
	c := r.login(1)
	before := r.Stats().Targets[0].Traffic
	good(t, c.Do(write(0, pattern(1, 4*block))))
	good(t, c.Do(iscsitest.Command{CDB: iscsitest.Read(0, 2), In: 2 * block}))
	good(t, c.Do(iscsitest.Command{CDB: iscsitest.SynchronizeCache()}))
	want := iscsitarget.Traffic{
		Commands: before.Commands + 3, Reads: before.Reads + 1, Writes: before.Writes + 1,
		BytesRead: before.BytesRead + 2*block, BytesWritten: before.BytesWritten + 4*block,
	}
	if diff := cmp.Diff(iscsitarget.TargetStats{Name: target, Sessions: 1, Traffic: want}, r.Stats().Targets[0]); diff != "" {
		t.Errorf("with a session (-want +got):\n%s", diff)
	}
	if err := r.target.Revoke(within(t, iscsitest.Timeout), node); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(iscsitarget.TargetStats{Name: target, Traffic: want}, r.Stats().Targets[0]); diff != "" {
		t.Errorf("after it (-want +got):\n%s", diff)
	}
}

// TestStatsOfLogins counts each way in which a login comes to nothing.
func TestStatsOfLogins(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node, CHAP: &iscsitarget.CHAP{User: "u", Secret: "right"}})
	discovery := r.dial(2)
	discovery.Login(iscsitest.Login{Initiator: node})
	if got := r.Stats(); got.DiscoverySessions != 1 || got.Logins != 1 || got.Connections != 1 || got.ConnectionsAccepted != 1 {
		t.Errorf("with a discovery session: %+v", got)
	}

	r.refused(pdu.LoginAuthFailure, iscsitest.Login{Initiator: node, Target: target, CHAP: &iscsitest.CHAP{User: "u", Secret: "wrong"}})
	r.refused(pdu.LoginNotFound, iscsitest.Login{Initiator: "iqn.stranger", Target: target})
	r.refused(pdu.LoginNotFound, iscsitest.Login{Initiator: node, Target: "iqn.nowhere"})
	noise := r.dial(4)
	if err := noise.SendRaw(make([]byte, 48)); err != nil {
		t.Fatal(err)
	}
	noise.ExpectClosed()
	broken := r.dial(5)
	if err := broken.SendRaw([]byte{0x43}); err != nil {
		t.Fatal(err)
	}
	broken.Close()
	probe, err := net.Dial("tcp", r.addr) // as a health check does: no login, no refusal
	if err != nil {
		t.Fatal(err)
	}
	probe.Close()
	eventually(t, "connections to end", func() bool { return r.Stats().Connections == 1 })
	want := map[iscsitarget.Refusal]uint64{}
	for _, reason := range iscsitarget.Refusals {
		want[reason] = 0
	}
	want[iscsitarget.RefusedAuthentication], want[iscsitarget.RefusedNotPermitted] = 1, 2
	want[iscsitarget.RefusedProtocol], want[iscsitarget.RefusedDisconnected] = 1, 1
	if diff := cmp.Diff(want, r.Stats().LoginsRefused); diff != "" {
		t.Errorf("refusals (-want +got):\n%s", diff)
	}

	r = newRig(t, iscsitarget.Options{LoginTimeout: soon})
	r.dial(1).ExpectClosed() // says nothing
	eventually(t, "the timeout to be counted", func() bool {
		return r.Stats().LoginsRefused[iscsitarget.RefusedTimeout] == 1
	})
}

// TestAllowFrom: a stranger's connection is closed unread; who is allowed comes
// in, also under an IPv4 address mapped into IPv6.
func TestAllowFrom(t *testing.T) {
	elsewhere := netip.MustParsePrefix("192.0.2.0/24")
	r := newRig(t, iscsitarget.Options{AllowFrom: []netip.Prefix{elsewhere}})
	r.permit(iscsitarget.Grant{Initiator: node})
	r.dial(1).ExpectClosed()
	if got := r.Stats(); got.ConnectionsDenied != 1 || got.ConnectionsAccepted != 0 {
		t.Errorf("%+v", got)
	}
	r = newRig(t, iscsitarget.Options{AllowFrom: []netip.Prefix{elsewhere, netip.MustParsePrefix("127.0.0.0/8")}})
	r.permit(iscsitarget.Grant{Initiator: node})
	r.login(1)
	if got := r.Stats(); got.ConnectionsDenied != 0 || got.Logins != 1 {
		t.Errorf("%+v", got)
	}
}

func TestAllowed(t *testing.T) {
	s := iscsitarget.NewServer(iscsitarget.Options{AllowFrom: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::ffff:198.51.100.0/120"),
	}})
	for addr, want := range map[string]bool{
		"192.0.2.7:1":           true,
		"[::ffff:192.0.2.7]:1":  true,
		"192.0.3.1:1":           false,
		"[::ffff:192.0.3.1]:1":  false,
		"198.51.100.9:1":        true,
		"198.51.101.9:1":        false,
		"[2001:db8::9]:1":       true,
		"[2001:db9::9]:1":       false,
		"[fe80::1%lo]:1":        true,
		"[::192.0.2.7]:1":       false,
		"/run/somebody's/sock.": false,
	} {
		if got := s.Allowed(textAddr(addr)); got != want {
			t.Errorf("%s: allowed %t, want %t", addr, got, want)
		}
	}
	if s := iscsitarget.NewServer(iscsitarget.Options{}); !s.Allowed(textAddr("203.0.113.1:1")) {
		t.Error("an empty list denies")
	}
}

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }
