package driver

import (
	"context"
	"errors"
	"regexp"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func TestPluginInfo(t *testing.T) {
	info, err := NewIdentity("v1.2.3", nil).GetPluginInfo(t.Context(), nil)
	if err != nil || info.GetName() != "csi-ietd.io" || info.GetVendorVersion() != "v1.2.3" {
		t.Fatalf("GetPluginInfo = %v, %v", info, err)
	}
	// The specification's form of a plugin name.
	form := regexp.MustCompile(`^[a-zA-Z0-9]([-.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$`)
	if !form.MatchString(Name) {
		t.Errorf("%q is no plugin name", Name)
	}
	if Version() == "" {
		t.Error("Version is empty; vendor_version is REQUIRED")
	}
}

func TestPluginCapabilities(t *testing.T) {
	resp, err := NewIdentity("v", nil).GetPluginCapabilities(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var controller, topology, online bool
	for _, c := range resp.GetCapabilities() {
		controller = controller || c.GetService().GetType() == csi.PluginCapability_Service_CONTROLLER_SERVICE
		topology = topology || c.GetService().GetType() == csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS
		online = online || c.GetVolumeExpansion().GetType() == csi.PluginCapability_VolumeExpansion_ONLINE
	}
	if !controller || !topology || !online || len(resp.GetCapabilities()) != 3 {
		t.Errorf("capabilities = %v", resp.GetCapabilities())
	}
}

func TestProbe(t *testing.T) {
	broken := errors.New("the portal is gone")
	for name, tt := range map[string]struct {
		ready   func(context.Context) (bool, error)
		want    bool
		wantErr error
	}{
		"no question": {nil, true, nil},
		"ready":       {func(context.Context) (bool, error) { return true, nil }, true, nil},
		"starting":    {func(context.Context) (bool, error) { return false, nil }, false, nil},
		"broken":      {func(context.Context) (bool, error) { return false, broken }, false, broken},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := NewIdentity("v", tt.ready).Probe(t.Context(), nil)
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("err = %v, want %v", err, tt.wantErr)
			}
			if err == nil && resp.GetReady().GetValue() != tt.want {
				t.Errorf("ready = %v, want %v", resp.GetReady(), tt.want)
			}
		})
	}
}
