package driver

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// ControllerPublishVolume lets a node in and tells it how: the publish_context
// carries the secrets, sealed to the node's key.
func (c *Controller) ControllerPublishVolume(ctx context.Context, req *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	capability, err := volumeCapability("volume_capability", req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	if err := capability.Check(); err != nil {
		return nil, err
	}
	v, err := c.volumes.Get(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	node, err := ParseNodeID(req.GetNodeId())
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", req.GetNodeId(), err)
	}
	a, err := c.volumes.Attach(ctx, v.ID, volume.AttachOptions{
		Node:       volume.Node{UUID: node.UUID, ID: req.GetNodeId()},
		Capability: capability,
		ReadOnly:   req.GetReadonly(),
	})
	if err != nil {
		return nil, err
	}
	sealed, err := c.publishContext(v, a).Seal(node)
	if err != nil {
		return nil, err
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: sealed}, nil
}

func (c *Controller) publishContext(v volume.Volume, a volume.Attachment) PublishContext {
	return PublishContext{
		Portals:    c.portals,
		TargetName: volume.TargetName(v.UUID),
		LUN:        0,
		NAA:        fmt.Sprintf("%016x", v.NAA),
		Serial:     v.UUID,
		SizeBytes:  v.Size,
		Generation: a.Generation,
		ReadOnly:   a.WriteProtected(),
		Credentials: Credentials{
			User:         a.Credentials.User,
			Secret:       a.Credentials.Secret,
			MutualUser:   a.Credentials.MutualUser,
			MutualSecret: a.Credentials.MutualSecret,
		},
	}
}

// ControllerUnpublishVolume is the fence: OK means that nothing of the node can
// reach the volume any more. A node_id that no csi-ietd node made never had it.
func (c *Controller) ControllerUnpublishVolume(ctx context.Context, req *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	everyone := req.GetNodeId() == ""
	node, err := ParseNodeID(req.GetNodeId())
	if err != nil && !everyone {
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	}
	if err := c.volumes.Detach(ctx, req.GetVolumeId(), node.UUID); err != nil {
		return nil, err
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}
