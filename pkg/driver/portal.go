package driver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// defaultPort is iSCSI's well-known port (RFC 7143 section 4.3).
const defaultPort = 3260

// errNoAddress: a machine without an address that another could reach.
var errNoAddress = errors.New("this machine has no address that nodes could log in on; give one with --portal ip:port")

// AdvertisedPortals are the portals that nodes are told to log in on, for a
// target that listens there: the ones given; or the address listened on; or,
// where that is every address, the first global unicast one of this machine,
// which is a guess that the caller must tell of.
func AdvertisedPortals(given []string, listening net.Addr, own func() ([]net.Addr, error)) (portals []string, guessed bool, err error) {
	bound, err := netip.ParseAddrPort(listening.String())
	if err != nil {
		return nil, false, fmt.Errorf("listening on %s: %w", listening, err)
	}
	if len(given) > 0 {
		portals, err = givenPortals(given, bound.Port())
		return portals, false, err
	}
	if !bound.Addr().IsUnspecified() {
		p, err := portal(bound.Addr(), bound.Port())
		return []string{p}, false, err
	}
	addr, err := firstAddress(own)
	if err != nil {
		return nil, false, err
	}
	p, err := portal(addr, bound.Port())
	return []string{p}, true, err
}

func givenPortals(given []string, port uint16) ([]string, error) {
	var portals []string
	for _, g := range given {
		p, err := parsePortal(g, port)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(portals, p) {
			portals = append(portals, p)
		}
	}
	return portals, nil
}

// parsePortal reads "ip:port" or "ip" and returns the one form of it that
// nodes compare with what the kernel shows.
func parsePortal(s string, port uint16) (string, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return portal(ap.Addr(), ap.Port())
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return "", fmt.Errorf("portal %q is not ip:port; names are not taken", s)
	}
	return portal(addr, port)
}

func portal(addr netip.Addr, port uint16) (string, error) {
	addr = addr.Unmap()
	if addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" || port == 0 {
		return "", fmt.Errorf("portal %s is not an address that a node can log in on", netip.AddrPortFrom(addr, port))
	}
	return netip.AddrPortFrom(addr, port).String(), nil
}

func firstAddress(own func() ([]net.Addr, error)) (netip.Addr, error) {
	addrs, err := own()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr(), nil
		}
	}
	return netip.Addr{}, errNoAddress
}
