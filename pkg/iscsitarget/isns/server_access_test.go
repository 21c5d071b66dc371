package isns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAccess(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, 0)
	tm := quick
	tm.alive = 10 * time.Millisecond
	x := run(t, guarded(s), tm, registration(disk, tape))
	x.registers(t)
	for _, name := range []string{initiator, stranger} {
		newPeer(t, s, name).register()
	}
	if x.Allowed(disk, initiator) || x.Allowed(disk, stranger) {
		t.Error("allowed without a discovery domain")
	}
	s.admin(t, "--dd-register", "dd-name=ours", "member-name="+disk, "member-name="+initiator)
	eventually(t, "allowed by the domain", func() bool { return x.Allowed(disk, initiator) })
	if !x.Allowed(strings.ToUpper(disk), strings.ToUpper(initiator)) {
		t.Error("names compare with case")
	}
	if x.Allowed(disk, stranger) || x.Allowed(tape, initiator) {
		t.Error("allowed who shares no domain")
	}
	if strings.Contains(x.log.String(), "no longer has a target") {
		t.Error("a target that is in no domain does not find itself")
	}
}

// Access that is taken away ends with the next question: open-isns tells a
// target who came into its domain, but not who left.
func TestAccessEnds(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, 0)
	tm := quick
	tm.refresh = 200 * time.Millisecond
	x := run(t, guarded(s), tm, registration(disk))
	x.registers(t)
	p := x.befriends(t, s)
	s.admin(t, "--dd-deregister", "1", "member-name="+initiator)
	eventually(t, "refused without the domain", func() bool { return !x.Allowed(disk, initiator) })
	if !p.sees(initiator) {
		t.Error("the initiator is not registered any more: that is another reason")
	}
}

// Without notifications (no portal has the address that is used towards the
// server) access is found by asking.
func TestAccessWithoutNotifications(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, 0)
	tm := quick
	tm.refresh = 200 * time.Millisecond
	r := registration(disk)
	r.Portals = []Portal{{Addr: netip.MustParseAddrPort("192.0.2.1:3260")}}
	x := run(t, guarded(s), tm, r)
	x.registers(t)
	x.befriends(t, s)
	if !strings.Contains(x.log.String(), "sends no notifications") {
		t.Error("the log does not say that there are no notifications")
	}
}

// More initiators than open-isns has room for in an answer.
func TestAccessOfMany(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	p := newPeer(t, s, initiator)
	var names []string
	for i := range 300 {
		p.name = fmt.Sprintf("%s-%d", initiator, i)
		p.register()
		names = append(names, p.name)
	}
	x := run(t, guarded(s), quick, registration(disk))
	eventually(t, "all are allowed", func() bool {
		return !slices.ContainsFunc(names, func(n string) bool { return !x.Allowed(disk, n) })
	})
	if x.Allowed(disk, initiator) || x.Allowed(disk, disk) {
		t.Error("allowed more than all")
	}
}

// A node that is initiator and target is an initiator.
func TestAccessOfBoth(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	x := run(t, guarded(s), quick, registration(disk))
	x.registers(t)
	p := newPeer(t, s, initiator)
	id := text(tagEntityID, "both.example")
	if _, err := p.call(devAttrReg, attrs{id}, attrs{id, number(tagEntityProtocol, entityISCSI), text(tagNodeName, initiator), number(tagNodeType, nodeInitiator|nodeTarget)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "allowed", func() bool { return x.Allowed(disk, initiator) })
}
