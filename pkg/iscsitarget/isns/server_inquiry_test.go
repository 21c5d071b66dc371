package isns

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// The server asks every second or so, and would forget the portal after a few
// that nobody answers.
func TestESI(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	c := config(s)
	c.ESIInterval = time.Second
	x := run(t, c, quick, registration(disk))
	x.registers(t)
	p := newPeer(t, s, initiator)
	p.register()
	begun := time.Now()
	eventually(t, "an ESI later than three that are missing", func() bool {
		return x.State().LastESI.Sub(begun) > 6*time.Second
	})
	if !p.sees(disk) {
		t.Error("the target is gone in spite of its ESIs")
	}
	if n := strings.Count(s.output.String(), "Good ESI response"); n < 3 {
		t.Errorf("the server had %d good answers:\n%s", n, s.output)
	}
	if strings.Contains(s.output.String(), "No ESI response") {
		t.Errorf("the server missed an answer:\n%s", s.output)
	}
}

// The counterpart: a client whose inbox is deaf loses its portal there. So the
// test above would notice.
func TestDeafToESI(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	p := newPeer(t, s, disk)
	id := text(tagEntityID, entityID)
	at := portal{addr: loopback.Addr, inquiries: 1, status: true}
	if _, err := p.call(devAttrReg, attrs{id}, append(append(attrs{id, number(tagEntityProtocol, entityISCSI)}, at.attrs(time.Second)...), Target{Name: disk}.attrs(nil)...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server drops a deaf portal", func() bool { return strings.Contains(s.output.String(), "dropping portal") })
}

// notes collects notifications.
type notes struct {
	mu  sync.Mutex
	all []Notification
}

func (n *notes) put(x Notification) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, x)
}

func (n *notes) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = nil
}

// of are the events that a target was told about a node.
func (n *notes) of(target, node string) (e Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.all {
		for _, c := range x.Changes {
			if x.Target == target && c.Node == node {
				e |= c.Event
			}
		}
	}
	return e
}

func TestNotifications(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	var n notes
	c := config(s)
	c.OnChange = n.put
	x := run(t, c, quick, registration(disk, tape))
	x.registers(t)
	p := newPeer(t, s, initiator)
	p.register()
	for _, target := range []string{disk, tape} {
		eventually(t, target+" is told of the initiator", func() bool { return n.of(target, initiator)&Added != 0 })
	}
	if _, err := p.call(devDereg, nil, attrs{text(tagNodeName, initiator)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told that the initiator left", func() bool { return n.of(disk, initiator)&Removed != 0 })
	if strings.Contains(s.output.String(), "timed out") {
		t.Errorf("the server waited for an answer in vain:\n%s", s.output)
	}
}

// An initiator hears of our targets: what we ask for does not keep it from that.
func TestInitiatorIsNotified(t *testing.T) {
	t.Parallel()
	s := startISNSD(t, defaultDomain)
	var n notes
	other := config(s)
	other.EntityID, other.OnChange = "other.example", n.put
	r := Registration{Targets: []Target{{Name: stranger}}, Portals: []Portal{{Addr: netip.MustParseAddrPort("127.0.0.1:3261")}}}
	o := run(t, other, quick, r)
	o.registers(t)
	x := run(t, config(s), quick, registration(disk))
	x.registers(t)
	eventually(t, "told of the target", func() bool { return n.of(stranger, disk)&Added != 0 })
	n.forget()
	r = registration(disk)
	r.Targets[0].Alias = "another"
	if err := x.Set(r); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told that the target changed", func() bool { return n.of(stranger, disk)&Updated != 0 })
	x.stop()
	eventually(t, "told that the target left", func() bool { return n.of(stranger, disk)&Removed != 0 })
}
