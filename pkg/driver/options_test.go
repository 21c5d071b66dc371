package driver

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func TestControllerOptionsDefaults(t *testing.T) {
	o := DefaultControllerOptions()
	flags := pflag.NewFlagSet("controller", pflag.ContinueOnError)
	o.AddFlags(flags)
	if err := flags.Parse(nil); err != nil {
		t.Fatal(err)
	}
	if err := o.Validate(); err != nil {
		t.Errorf("no flags at all: %v", err)
	}
	want := ControllerOptions{Endpoint: "unix:///run/csi-ietd/controller.sock", PoolDir: "/var/lib/csi-ietd/pool",
		ListenAddress: ":3260", OverProvisioningRatio: 1}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestControllerFlags(t *testing.T) {
	o := DefaultControllerOptions()
	flags := pflag.NewFlagSet("controller", pflag.ContinueOnError)
	o.AddFlags(flags)
	err := flags.Parse([]string{"--endpoint=unix:///tmp/x.sock", "--pool-dir=/p", "--listen-address=10.0.0.1:3261",
		"--portal=10.0.0.1:3261", "--portal", "10.0.1.1", "--over-provisioning-ratio=2.5",
		"--http-address=:9810", "--max-volumes-per-node=99", "--allow-from=10.0.0.0/8,192.0.2.7", "--allow-from=2001:db8::/32",
		"--ietadm-socket=/run/csi-ietd/ietadm.sock"})
	if err != nil {
		t.Fatal(err)
	}
	want := ControllerOptions{Endpoint: "unix:///tmp/x.sock", PoolDir: "/p", ListenAddress: "10.0.0.1:3261",
		Portals: []string{"10.0.0.1:3261", "10.0.1.1"}, OverProvisioningRatio: 2.5,
		HTTPAddress: ":9810", MaxVolumesPerNode: 99, AllowFrom: []string{"10.0.0.0/8", "192.0.2.7", "2001:db8::/32"},
		AdminSocket: "/run/csi-ietd/ietadm.sock"}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

func TestControllerOptionsRefused(t *testing.T) {
	for flag, change := range map[string]func(*ControllerOptions){
		"--endpoint":           func(o *ControllerOptions) { o.Endpoint = "tcp://0.0.0.0:1" },
		"--pool-dir":           func(o *ControllerOptions) { o.PoolDir = "pool" },
		"--listen-address":     func(o *ControllerOptions) { o.ListenAddress = "3260" },
		"--portal":             func(o *ControllerOptions) { o.Portals = []string{"storage.example:3260"} },
		"--portal: 17 portals": func(o *ControllerOptions) { o.Portals = make([]string, 17) },
		"--http-address":       func(o *ControllerOptions) { o.HTTPAddress = "9810" },
		"--ietadm-socket":      func(o *ControllerOptions) { o.AdminSocket = "ietadm.sock" },
		"--allow-from":         func(o *ControllerOptions) { o.AllowFrom = []string{"storage.example"} },
		"--allow-from: \"10.0.0.1/8\" has bits beyond its prefix: give 10.0.0.0/8": func(o *ControllerOptions) { o.AllowFrom = []string{"10.0.0.1/8"} },
		"--max-volumes-per-node -1":      func(o *ControllerOptions) { o.MaxVolumesPerNode = -1 },
		"--over-provisioning-ratio 0":    func(o *ControllerOptions) { o.OverProvisioningRatio = 0 },
		"--over-provisioning-ratio NaN":  func(o *ControllerOptions) { o.OverProvisioningRatio = math.NaN() },
		"--over-provisioning-ratio +Inf": func(o *ControllerOptions) { o.OverProvisioningRatio = math.Inf(1) },
	} {
		o := DefaultControllerOptions()
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("Validate = %v, want an error naming %s", err, flag)
		}
	}
}

func TestParsePrefixes(t *testing.T) {
	got, err := ParsePrefixes([]string{"10.0.0.0/8", "192.0.2.7", "2001:db8::1", "::/0"})
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"),
		netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("::/0")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "10.0.0.0/33", "10.0.0/8", "fe80::1%eth0", "host/8", "10.0.0.0/8/8"} {
		if got, err := ParsePrefixes([]string{bad}); err == nil {
			t.Errorf("%q was taken for %v", bad, got)
		}
	}
}
