package ietd

import (
	"net"
	"net/netip"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// admits is asked for each login, and for each target that discovery might tell of: the
// files are read again every time. What is wrong with them admits nobody.
func (d *Daemon) admits(target string, v iscsitarget.Visitor) bool {
	ok, err := d.opts.Access.Portal(target, v.Local.Addr())
	if err == nil && ok {
		ok, err = d.opts.Access.Initiator(target, v.Initiator, v.Remote.Addr())
	}
	if err != nil {
		d.log.Error("access is refused: a file of allowed or denied initiators or targets cannot be understood", "target", target, "initiator", v.Initiator, "error", err)
		return false
	}
	names := d.directory.Load()
	return ok && (names == nil || names.client.Allowed(target, v.Initiator))
}

// portalsOf are the addresses at which a target can be logged in to, for one who asks at
// local: that one first, then the others of its family that are listened on and that
// targets.allow has not taken away.
func (d *Daemon) portalsOf(target string, local netip.AddrPort) []string {
	list := []string{local.String()}
	for _, p := range d.listening() {
		other := p.Addr() != local.Addr() && p.Addr().Is4() == local.Addr().Is4()
		if ok, err := d.opts.Access.Portal(target, p.Addr()); other && ok && err == nil {
			list = append(list, p.String())
		}
	}
	return list
}

// listening are the portals that others can reach: those that are listened on, with the
// machine's addresses in place of any.
func (d *Daemon) listening() (list []netip.AddrPort) {
	d.nearMu.Lock()
	portals := append([]netip.AddrPort(nil), d.portals...)
	d.nearMu.Unlock()
	for _, p := range portals {
		if !p.Addr().IsUnspecified() {
			list = append(list, netip.AddrPortFrom(p.Addr().Unmap(), p.Port()))
			continue
		}
		for _, a := range machineAddresses() {
			if p.Addr().Is6() || a.Is4() { // any of IPv6 takes IPv4 too
				list = append(list, netip.AddrPortFrom(a, p.Port()))
			}
		}
	}
	return list
}

// tidOf is a target's number, 0 for one that has gone.
func (d *Daemon) tidOf(target string) uint32 {
	d.nearMu.Lock()
	defer d.nearMu.Unlock()
	return d.tids[strings.ToLower(target)]
}

// machineAddresses are those of the machine's interfaces, but the loopback's and those
// that are of a link alone.
func machineAddresses() (list []netip.Addr) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil // discovery tells the address that it came to
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			list = append(list, p.Addr().Unmap())
		}
	}
	return list
}
