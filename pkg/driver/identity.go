package driver

import (
	"context"
	"runtime/debug"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Name is the driver's name towards Kubernetes. It ends up in users'
// PersistentVolumes and never changes.
const Name = "csi-ietd.io"

// Identity answers CSI's Identity service, for the controller and the node.
type Identity struct {
	csi.UnimplementedIdentityServer
	version string
	ready   func(context.Context) (bool, error)
}

var _ csi.IdentityServer = (*Identity)(nil)

// NewIdentity returns an Identity service. Probe asks ready: false means still
// starting, an error means that a restart is needed. Nil is always ready.
func NewIdentity(version string, ready func(context.Context) (bool, error)) *Identity {
	return &Identity{version: version, ready: ready}
}

// GetPluginInfo names the driver and its version.
func (i *Identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: Name, VendorVersion: i.version}, nil
}

// GetPluginCapabilities says that there is a controller, that nodes tell their
// segment (see segment) and that volumes grow while they are in use.
func (i *Identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_CONTROLLER_SERVICE,
		}}},
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
		}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE,
		}}},
	}}, nil
}

// Probe tells whether the service can do its work now.
func (i *Identity) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	ready := true
	if i.ready != nil {
		var err error
		if ready, err = i.ready(ctx); err != nil {
			return nil, err
		}
	}
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(ready)}, nil
}

// Version is the version of the program as the Go toolchain recorded it: a
// module version or tag, "(devel)" where there is none.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
