package driver

import (
	"context"
	"strings"
	"unicode"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// Controller answers CSI's Controller service. It translates; the work is the
// volume service's, and errors become gRPC codes in the interceptors.
type Controller struct {
	csi.UnimplementedControllerServer
	volumes volume.Service
	portals []string
}

var _ csi.ControllerServer = (*Controller)(nil)

// NewController returns a Controller service over idempotent volumes. The
// portals are what nodes are told to log in on: "ip:port", IPv6 in brackets.
func NewController(volumes volume.Service, portals []string) *Controller {
	return &Controller{volumes: volumes, portals: portals}
}

// controllerCapabilities are the optional calls that work.
var controllerCapabilities = []csi.ControllerServiceCapability_RPC_Type{
	csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
	csi.ControllerServiceCapability_RPC_PUBLISH_READONLY,
	csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
	csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
	csi.ControllerServiceCapability_RPC_GET_CAPACITY,
	csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
	csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
}

// ControllerGetCapabilities lists the optional calls that work.
func (c *Controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range controllerCapabilities {
		resp.Capabilities = append(resp.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

// CreateVolume makes a volume, or returns the one of that name.
func (c *Controller) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	options, err := createOptions(req)
	if err != nil {
		return nil, err
	}
	v, err := c.volumes.Create(ctx, options)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: csiVolume(v)}, nil
}

func createOptions(req *csi.CreateVolumeRequest) (volume.CreateOptions, error) {
	var none volume.CreateOptions
	if err := checkCreateFields(req); err != nil {
		return none, err
	}
	size, err := sizeRange(req.GetCapacityRange())
	if err != nil {
		return none, err
	}
	capabilities, err := volumeCapabilities(req.GetVolumeCapabilities())
	if err != nil {
		return none, err
	}
	if err := checkParameters(req.GetParameters(), capabilities); err != nil {
		return none, err
	}
	return volume.CreateOptions{
		Name:         req.GetName(),
		Size:         size,
		Capabilities: capabilities,
		Parameters:   req.GetParameters(),
	}, nil
}

// checkCreateFields refuses what CreateVolume can carry and csi-ietd does not
// advertise, and names with characters that the specification bans.
func checkCreateFields(req *csi.CreateVolumeRequest) error {
	switch {
	case strings.ContainsFunc(req.GetName(), bannedInName):
		return invalidField("name", "it holds a control character")
	case req.GetVolumeContentSource() != nil:
		return invalidField("volume_content_source", "volumes are made empty; snapshots and clones are not supported")
	case len(req.GetMutableParameters()) > 0:
		return invalidField("mutable_parameters", "there are none")
	}
	return checkRequirement(req.GetAccessibilityRequirements())
}

// bannedInName: control characters but tab, line feed and carriage return.
func bannedInName(r rune) bool {
	return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r'
}

func csiVolume(v volume.Volume) *csi.Volume {
	return &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Size, VolumeContext: volumeContext(v.Parameters)}
}

// DeleteVolume destroys a volume; one that is not there is deleted.
func (c *Controller) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := c.volumes.Delete(ctx, req.GetVolumeId()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// ControllerExpandVolume grows a volume, in use or not. A node always has work
// to do after it: to look at its disk again, and to grow the file system.
func (c *Controller) ControllerExpandVolume(ctx context.Context, req *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	size, err := sizeRange(req.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	if size == (volume.SizeRange{}) {
		return nil, invalidField("capacity_range", "required_bytes or limit_bytes is required")
	}
	if err := checkOptionalCapability(req.GetVolumeCapability()); err != nil {
		return nil, err
	}
	bytes, err := c.volumes.Expand(ctx, req.GetVolumeId(), size)
	if err != nil {
		return nil, err
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: bytes, NodeExpansionRequired: true}, nil
}

func checkOptionalCapability(c *csi.VolumeCapability) error {
	if c == nil {
		return nil
	}
	capability, err := volumeCapability("volume_capability", c)
	if err != nil {
		return err
	}
	return capability.Check()
}
