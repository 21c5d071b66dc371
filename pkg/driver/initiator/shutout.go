package initiator

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

// ShutOut returns the targets, of names that begin with prefix, to which this
// node has lost all its sessions and which do not let it in any more, sorted: a
// portal of theirs answers a discovery (RFC 7143 section 4.3) under this node's
// name, and none that answers names them. A portal that does not answer says
// nothing: its target may come back.
func (i *Initiator) ShutOut(ctx context.Context, prefix string) ([]string, error) {
	lost, err := i.lostTargets(prefix)
	if err != nil || len(lost) == 0 {
		return nil, err
	}
	h, err := i.host(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.ensureIface(ctx, h); err != nil {
		return nil, err
	}
	answers := map[string]answer{} // by portal: many targets have the same
	var out []string
	for target, portals := range lost {
		answered, named := false, false
		for _, portal := range portals {
			a, asked := answers[portal]
			if !asked {
				a = i.discover(ctx, h, portal)
				answers[portal] = a
			}
			answered = answered || a.ok
			named = named || slices.Contains(a.targets, target)
		}
		if answered && !named {
			out = append(out, target)
		}
	}
	slices.Sort(out)
	return out, nil
}

// lostTargets are the targets whose sessions are all lost, and all ours, with
// their portals.
func (i *Initiator) lostTargets(prefix string) (map[string][]string, error) {
	sessions, err := i.sysfs.allSessions()
	if err != nil {
		return nil, err
	}
	lost, other := map[string][]string{}, map[string]bool{}
	for _, s := range sessions {
		if !strings.HasPrefix(s.target, prefix) {
			continue
		}
		if s.state != recovers && s.state != free || s.initiator != i.cfg.InitiatorName {
			other[s.target] = true
		}
		lost[s.target] = append(lost[s.target], i.sysfs.portals(s)...)
	}
	for target := range other {
		delete(lost, target)
	}
	return lost, nil
}

// portals are the addresses that a session was made with.
func (s sysfs) portals(ses session) []string {
	connections, err := filepath.Glob(filepath.Join(ses.dir, "device/connection*/iscsi_connection/connection*"))
	if err != nil {
		return nil
	}
	var portals []string
	for _, dir := range connections {
		address, err := attribute(dir, "persistent_address")
		if err != nil || net.ParseIP(address) == nil {
			continue
		}
		if port, err := attribute(dir, "persistent_port"); err == nil {
			portals = append(portals, net.JoinHostPort(address, port))
		}
	}
	return portals
}

// discoverTimeout bounds one discovery; iscsiadm by itself tries a portal that
// is away for most of a minute.
const discoverTimeout = 15 * time.Second

// answer is what a portal said to a discovery.
type answer struct {
	ok      bool
	targets []string
}

// discover asks a portal what this node may log in to. No record is made.
func (i *Initiator) discover(ctx context.Context, h host, portal string) answer {
	ctx, cancel := context.WithTimeout(ctx, discoverTimeout)
	defer cancel()
	out, err := h.exec(ctx, "iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal, "-I", ifaceName, "-o", "nonpersistent")
	var exit *child.ExitError
	if errors.As(err, &exit) && exit.Code == exitNoObjects && strings.Contains(exit.Stderr, "No portals found") {
		return answer{ok: true} // it names none; the status alone may mean a missing iface
	}
	if err != nil {
		return answer{}
	}
	a := answer{ok: true}
	for line := range strings.Lines(out) { // "10.0.0.1:3260,1 iqn.2026-11.example:disk"
		if _, target, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			a.targets = append(a.targets, target)
		}
	}
	return a
}
