package isns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	disk      = "iqn.2026-11.io.example:disk"
	tape      = "iqn.2026-11.io.example:tape"
	initiator = "iqn.2026-11.io.example:initiator"
	stranger  = "iqn.2026-11.io.example:stranger"
	entityID  = "storage.example"
)

var loopback = Portal{Addr: netip.MustParseAddrPort("127.0.0.1:3260")}

func registration(names ...string) Registration {
	r := Registration{Portals: []Portal{loopback}}
	for _, n := range names {
		r.Targets = append(r.Targets, Target{Name: n, Alias: "alias of " + n})
	}
	return r
}

func config(s *isnsd) Config { return Config{Server: s.address, EntityID: entityID} }

// guarded is config of a client that asks the server who is admitted.
func guarded(s *isnsd) Config {
	c := config(s)
	c.AccessControl = true
	return c
}

// befriends registers the initiator in a domain with disk, and returns when that admits it.
func (x *running) befriends(t *testing.T, s *isnsd) *peer {
	t.Helper()
	p := newPeer(t, s, initiator)
	p.register()
	s.admin(t, "--dd-register", "dd-name=ours", "member-name="+disk, "member-name="+initiator)
	eventually(t, "allowed by the domain", func() bool { return x.Allowed(disk, initiator) })
	return p
}

func (x *running) registers(t *testing.T) {
	t.Helper()
	eventually(t, "registered", func() bool { return x.State().Registered })
}

// What is registered is seen by an initiator, and not any more when the client
// has ended.
func TestRegistration(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	x := run(t, config(s), quick, registration(disk))
	x.registers(t)
	p := newPeer(t, s, initiator)
	p.register()
	if !p.sees(disk) {
		t.Fatalf("the initiator does not see the target; the server has\n%s", s.list(t, "nodes"))
	}
	l, err := p.call(devAttrQry, attrs{text(tagNodeName, disk)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []attr{
		text(tagEntityID, entityID), number(tagEntityProtocol, entityISCSI),
		text(tagNodeName, disk), number(tagNodeType, nodeTarget), text(tagNodeAlias, "alias of "+disk),
	} {
		if got, ok := l.find(want.tag); !ok || string(got.value) != string(want.value) {
			t.Errorf("attribute %d: got %q, want %q", want.tag, got.value, want.value)
		}
	}
	if got := s.portals(t); !slices.Contains(got, "127.0.0.1:3260") {
		t.Errorf("portals: %q", got)
	}
	x.stop()
	if p.sees(disk) || strings.Contains(s.list(t, "entities"), entityID) {
		t.Errorf("still there after the end:\n%s", s.list(t, "entities"))
	}
	if x.State().Registered {
		t.Error("registered after the end")
	}
}

// Targets and portals come and go while the client runs.
func TestChangeWhileRunning(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	x := run(t, config(s), quick, registration(disk))
	x.registers(t)
	p := newPeer(t, s, initiator)
	p.register()
	set := func(r Registration) {
		t.Helper()
		if err := x.Set(r); err != nil {
			t.Fatal(err)
		}
		x.registers(t)
	}

	set(registration(disk, tape))
	if !p.sees(disk) || !p.sees(tape) {
		t.Error("a target was added, and is not seen, or the other not any more")
	}
	set(registration(tape))
	if p.sees(disk) || !p.sees(tape) {
		t.Error("a target was removed, and is seen, or the other not any more")
	}
	r := registration(tape)
	r.Portals = append(r.Portals, Portal{Addr: netip.MustParseAddrPort("[2001:db8::1]:3261"), Group: 7})
	set(r)
	if got := s.portals(t); !slices.Contains(got, "[2001:db8::1]:3261") {
		t.Errorf("portals: %q", got)
	}
	if got := s.list(t, "portal-groups"); !strings.Contains(got, "Portal group tag = 7\n") {
		t.Errorf("no portal group of tag 7: %s", got)
	}
	r.Portals[1].Group = 0
	set(r)
	if got := s.list(t, "portal-groups"); strings.Contains(got, "Portal group tag = 7\n") {
		t.Errorf("the portal group of tag 7 remained: %s", got)
	}
	set(registration(tape))
	if got := s.portals(t); slices.Contains(got, "[2001:db8::1]:3261") {
		t.Errorf("a portal was removed, and is there: %q", got)
	}
	// No target is left that could speak for the entity.
	set(registration(disk))
	if !p.sees(disk) || p.sees(tape) {
		t.Error("one target took another's place, and is not seen, or the other is")
	}
	if err := x.Set(Registration{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing registered", func() bool { return !strings.Contains(s.list(t, "entities"), entityID) })
	set(registration(disk))
	if !p.sees(disk) {
		t.Error("registered again, and is not seen")
	}
}

// More targets than one request can carry.
func TestManyTargets(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprintf("%s.with-a-rather-long-name-to-fill-requests-%d", disk, i))
	}
	x := run(t, config(s), quick, registration(names...))
	x.registers(t)
	p := newPeer(t, s, initiator)
	p.register()
	for _, n := range names {
		if !p.sees(n) {
			t.Errorf("%s is not seen", n)
		}
	}
}

// What an earlier process left of the entity goes with the first registration.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	old := newPeer(t, s, tape)
	id := text(tagEntityID, entityID)
	if _, err := old.call(devAttrReg, attrs{id}, append(attrs{id, number(tagEntityProtocol, entityISCSI)}, Target{Name: tape}.attrs(nil)...)); err != nil {
		t.Fatal(err)
	}
	if !old.sees(tape) {
		t.Fatal("not registered")
	}
	x := run(t, config(s), quick, registration(disk))
	x.registers(t)
	p := newPeer(t, s, initiator)
	p.register()
	if p.sees(tape) || !p.sees(disk) {
		t.Errorf("the server has\n%s", s.list(t, "nodes"))
	}
}

// An entity that the server has dropped is noticed and registered again.
func TestForgotten(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	tm := quick
	tm.alive = 200 * time.Millisecond
	x := run(t, config(s), tm, registration(disk))
	x.registers(t)
	p := newPeer(t, s, initiator)
	p.register()
	s.admin(t, "--deregister", "eid="+entityID)
	eventually(t, "registered again", func() bool { return p.sees(disk) })
	eventually(t, "the log says so", func() bool { return strings.Contains(x.log.String(), "no longer has a target") })
}

// The server dies and comes back without a memory; meanwhile its last answer
// about access holds.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	x := run(t, guarded(s), quick, registration(disk))
	x.registers(t)
	newPeer(t, s, initiator).register()
	eventually(t, "allowed", func() bool { return x.Allowed(disk, initiator) })
	s.stop()
	eventually(t, "the loss is noticed", func() bool { return !x.State().Registered })
	if !x.Allowed(disk, initiator) {
		t.Error("refused because the server is away")
	}
	if err := x.Set(registration(disk, tape)); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	x.registers(t)
	p := newPeer(t, s, stranger)
	p.register()
	if !p.sees(disk) || !p.sees(tape) {
		t.Errorf("the server has\n%s", s.list(t, "nodes"))
	}
	eventually(t, "access is asked for anew", func() bool { return x.Allowed(tape, stranger) && !x.Allowed(disk, initiator) })
}

// 0.0.0.0 stands for the address that is used towards the server.
func TestUnspecifiedPortal(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	r := registration(disk)
	r.Portals = []Portal{{Addr: netip.MustParseAddrPort("0.0.0.0:3260")}, {Addr: netip.MustParseAddrPort("[::]:3260")}}
	x := run(t, config(s), quick, r)
	x.registers(t)
	if got := s.portals(t); !slices.Equal(got, []string{"127.0.0.1:3260"}) {
		t.Errorf("portals: %q", got)
	}
}
