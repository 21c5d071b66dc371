package driver

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
)

func TestAdvertisedPortals(t *testing.T) {
	machine := func() ([]net.Addr, error) {
		return prefixes("127.0.0.1/8", "::1/128", "fe80::1/64", "169.254.1.1/16", "192.168.7.9/24", "2001:db8::9/64"), nil
	}
	alone := func() ([]net.Addr, error) { return prefixes("127.0.0.1/8", "::1/128"), nil }
	for name, tt := range map[string]struct {
		given   []string
		listen  string
		own     func() ([]net.Addr, error)
		want    []string // none: an error
		guessed bool
	}{
		"given":              {[]string{"10.0.0.1:3261", "10.0.1.1"}, "0.0.0.0:3260", alone, []string{"10.0.0.1:3261", "10.0.1.1:3260"}, false},
		"given twice":        {[]string{"10.0.0.1", "10.0.0.1:3260"}, "0.0.0.0:3260", alone, []string{"10.0.0.1:3260"}, false},
		"given IPv6":         {[]string{"2001:DB8:0::1"}, "[::]:3260", alone, []string{"[2001:db8::1]:3260"}, false},
		"given mapped":       {[]string{"[::ffff:10.0.0.1]:3260"}, "[::]:3260", alone, []string{"10.0.0.1:3260"}, false},
		"given name":         {[]string{"storage.example:3260"}, "0.0.0.0:3260", machine, nil, false},
		"given any":          {[]string{"0.0.0.0:3260"}, "0.0.0.0:3260", machine, nil, false},
		"given zone":         {[]string{"[fe80::1%eth0]:3260"}, "0.0.0.0:3260", machine, nil, false},
		"given port 0":       {[]string{"10.0.0.1:0"}, "0.0.0.0:3260", machine, nil, false},
		"given nothing":      {[]string{""}, "0.0.0.0:3260", machine, nil, false},
		"listening on one":   {nil, "127.0.0.1:4000", machine, []string{"127.0.0.1:4000"}, false},
		"listening on all":   {nil, "0.0.0.0:3260", machine, []string{"192.168.7.9:3260"}, true},
		"listening on all 6": {nil, "[::]:3260", machine, []string{"192.168.7.9:3260"}, true},
		"no address":         {nil, "[::]:3260", alone, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			listen := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(tt.listen))
			got, guessed, err := AdvertisedPortals(tt.given, listen, tt.own)
			if tt.want == nil {
				if err == nil {
					t.Fatalf("portals %q, want an error", got)
				}
				return
			}
			if err != nil || !slices.Equal(got, tt.want) || guessed != tt.guessed {
				t.Errorf("%q, guessed %t, %v; want %q", got, guessed, err, tt.want)
			}
		})
	}
	_, _, err := AdvertisedPortals(nil, &net.TCPAddr{IP: net.IPv6unspecified, Port: 1}, alone)
	if !errors.Is(err, errNoAddress) {
		t.Errorf("without an address: %v", err)
	}
}

func prefixes(all ...string) []net.Addr {
	addrs := make([]net.Addr, 0, len(all))
	for _, s := range all {
		ip, network, _ := net.ParseCIDR(s)
		addrs = append(addrs, &net.IPNet{IP: ip, Mask: network.Mask})
	}
	return addrs
}
