package isns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ErrInvalid is a registration that iSNS cannot carry.
var ErrInvalid = errors.New("invalid iSNS registration")

const (
	maxName  = 223 // bytes of an iSCSI name (RFC 7143 section 4.2.7.1)
	maxAlias = 255 // bytes of an alias and of an EID, without the NUL
	// maxRequest bounds a registration's payload in bytes; a longer one becomes
	// several. open-isns answers with what was registered, and that in no more
	// than 8 KiB.
	maxRequest = 4 << 10
	// defaultGroup is the portal group tag that a server assumes (RFC 4171
	// section 5.6.5.1).
	defaultGroup = 1
)

// Target is an iSCSI target node.
type Target struct {
	// Name is its iSCSI name, of at most 223 bytes.
	Name string
	// Alias is text for people, of at most 255 bytes; empty: none.
	Alias string
}

// Portal is where targets are served. All targets are reached through all
// portals.
type Portal struct {
	// Addr and TCP port; an unspecified address (0.0.0.0, ::) stands for the
	// one that this host uses towards the server.
	Addr netip.AddrPort
	// Group is the target portal group tag; 0 stands for 1.
	Group uint16
}

// Registration is all that a server is to know of this host. Without targets or
// without portals nothing is registered.
type Registration struct {
	Targets []Target
	Portals []Portal
}

// validate says what iSNS cannot carry.
func (r Registration) validate() error {
	seen := map[string]bool{}
	for _, t := range r.Targets {
		key := fold(t.Name)
		switch {
		case t.Name == "" || len(t.Name) > maxName || strings.ContainsRune(t.Name, 0):
			return fmt.Errorf("%w: target name %q", ErrInvalid, t.Name)
		case len(t.Alias) > maxAlias || strings.ContainsRune(t.Alias, 0):
			return fmt.Errorf("%w: alias of target %s is longer than %d bytes or has a NUL", ErrInvalid, t.Name, maxAlias)
		case seen[key]:
			return fmt.Errorf("%w: target %s twice", ErrInvalid, t.Name)
		}
		seen[key] = true
	}
	addrs := map[netip.AddrPort]bool{}
	for _, p := range r.Portals {
		a := netip.AddrPortFrom(p.Addr.Addr().Unmap(), p.Addr.Port())
		switch {
		case !p.Addr.IsValid() || p.Addr.Port() == 0:
			return fmt.Errorf("%w: portal %q has no address or no port", ErrInvalid, p.Addr)
		case addrs[a]:
			return fmt.Errorf("%w: portal %s twice", ErrInvalid, p.Addr)
		}
		addrs[a] = true
	}
	return nil
}

// fold is an iSCSI name as it compares.
func fold(name string) string { return strings.ToLower(name) }

// portal is a Portal as it is registered.
type portal struct {
	addr  netip.AddrPort
	group uint16
	// inquiries is the TCP port that takes ESI and SCN messages at addr; 0:
	// none.
	inquiries uint16
	// status asks for ESI messages too.
	status bool
}

// entry is what the server has, or is to have.
type entry struct {
	portals []portal
	targets []Target
}

func (e entry) empty() bool { return len(e.targets) == 0 || len(e.portals) == 0 }

// name is the first target's that other has too; empty: none. It can be the
// source of a request before and after a change.
func (e entry) shared(other entry) string {
	for _, t := range e.targets {
		if other.has(t.Name) {
			return t.Name
		}
	}
	return ""
}

func (e entry) has(name string) bool {
	return slices.ContainsFunc(e.targets, func(t Target) bool { return fold(t.Name) == fold(name) })
}

// resolve makes a Registration what is registered from an end with this local
// address, on which inquiries are taken at a port (0: they are not).
func (r Registration) resolve(local netip.Addr, inquiries uint16, status bool) entry {
	e := entry{targets: slices.Clone(r.Targets)}
	seen := map[netip.AddrPort]bool{}
	for _, p := range r.Portals {
		a := p.Addr.Addr().Unmap()
		if a.IsUnspecified() {
			a = local
		}
		at := netip.AddrPortFrom(a.WithZone(""), p.Addr.Port())
		if !at.IsValid() || seen[at] {
			continue
		}
		seen[at] = true
		q := portal{addr: at, group: p.Group}
		if q.group == 0 {
			q.group = defaultGroup
		}
		if a == local && inquiries != 0 {
			q.inquiries, q.status = inquiries, status
		}
		e.portals = append(e.portals, q)
	}
	return e
}

// reachable says whether the server can send a message to this host.
func (e entry) reachable() bool {
	return slices.ContainsFunc(e.portals, func(p portal) bool { return p.inquiries != 0 })
}

// attrs are a portal's attributes (RFC 4171 section 6.3).
func (p portal) attrs(interval time.Duration) attrs {
	l := p.key()
	if p.inquiries == 0 {
		return l
	}
	if p.status {
		l = append(l, number(tagESIInterval, seconds(interval)), number(tagESIPort, uint32(p.inquiries)))
	}
	return append(l, number(tagSCNPort, uint32(p.inquiries)))
}

func (p portal) key() attrs {
	return attrs{addr(tagPortalAddr, p.addr.Addr()), number(tagPortalPort, uint32(p.addr.Port()))}
}

// grouped says whether a portal's group is another than a server assumes.
func (e entry) grouped() bool {
	return slices.ContainsFunc(e.portals, func(p portal) bool { return p.group != defaultGroup })
}

// attrs are a target's attributes (section 6.4), and those of the portal groups
// that join it to portals (section 6.5).
func (t Target) attrs(groups []portal) attrs {
	l := attrs{text(tagNodeName, t.Name), number(tagNodeType, nodeTarget)}
	if t.Alias != "" {
		l = append(l, text(tagNodeAlias, t.Alias))
	}
	for _, p := range groups {
		l = append(l,
			number(tagPGTag, uint32(p.group)),
			addr(tagPGAddr, p.addr.Addr()),
			number(tagPGPort, uint32(p.addr.Port())))
	}
	return l
}

// seconds is d in whole seconds, at least one.
func seconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 1), 1<<31))
}

// batches cuts objects, each with its attributes, into lists that fit into a
// request.
func batches(objects []attrs) []attrs {
	var all []attrs
	size := maxRequest
	for _, o := range objects {
		n := len(o.append(nil))
		if size+n > maxRequest {
			all, size = append(all, nil), 0
		}
		last := len(all) - 1
		all[last] = append(all[last], o...)
		size += n
	}
	return all
}

// gone are the keys of what e has and now has not, each an object.
func (e entry) gone(now entry) []attrs {
	var keys []attrs
	for _, t := range e.targets {
		if !now.has(t.Name) {
			keys = append(keys, attrs{text(tagNodeName, t.Name)})
		}
	}
	for _, p := range e.portals {
		if !slices.ContainsFunc(now.portals, func(q portal) bool { return q.addr == p.addr }) {
			keys = append(keys, p.key())
		}
	}
	return keys
}

// fresh are the targets of now that e has not, or not as they are now; all, when
// the portals differ, since each is joined to each.
func (e entry) fresh(now entry) []Target {
	if !slices.Equal(e.portals, now.portals) {
		return now.targets
	}
	var l []Target
	for _, t := range now.targets {
		if !slices.Contains(e.targets, t) {
			l = append(l, t)
		}
	}
	return l
}

// union is what the server may have while e becomes now.
func (e entry) union(now entry) entry {
	u := entry{slices.Clone(now.portals), slices.Clone(now.targets)}
	for _, t := range e.targets {
		if !u.has(t.Name) {
			u.targets = append(u.targets, t)
		}
	}
	for _, p := range e.portals {
		if !slices.ContainsFunc(u.portals, func(q portal) bool { return q.addr == p.addr }) {
			u.portals = append(u.portals, p)
		}
	}
	return u
}
