package driver

import (
	"math"
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
		"--portal=10.0.0.1:3261", "--portal", "10.0.1.1", "--over-provisioning-ratio=2.5"})
	if err != nil {
		t.Fatal(err)
	}
	want := ControllerOptions{Endpoint: "unix:///tmp/x.sock", PoolDir: "/p", ListenAddress: "10.0.0.1:3261",
		Portals: []string{"10.0.0.1:3261", "10.0.1.1"}, OverProvisioningRatio: 2.5}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

func TestControllerOptionsRefused(t *testing.T) {
	for flag, change := range map[string]func(*ControllerOptions){
		"--endpoint":                     func(o *ControllerOptions) { o.Endpoint = "tcp://0.0.0.0:1" },
		"--pool-dir":                     func(o *ControllerOptions) { o.PoolDir = "pool" },
		"--listen-address":               func(o *ControllerOptions) { o.ListenAddress = "3260" },
		"--portal":                       func(o *ControllerOptions) { o.Portals = []string{"storage.example:3260"} },
		"--portal: 17 portals":           func(o *ControllerOptions) { o.Portals = make([]string, 17) },
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
