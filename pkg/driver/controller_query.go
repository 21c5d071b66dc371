package driver

import (
	"context"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// ValidateVolumeCapabilities confirms what a volume can do; where it cannot, it
// says why and confirms nothing.
func (c *Controller) ValidateVolumeCapabilities(ctx context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	capabilities, err := volumeCapabilities(req.GetVolumeCapabilities())
	if err != nil {
		return nil, err
	}
	if _, err := c.volumes.Get(ctx, req.GetVolumeId()); err != nil {
		return nil, err
	}
	if why := unsupported(capabilities, req.GetParameters(), req.GetMutableParameters()); why != "" {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: why}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext:      req.GetVolumeContext(),
		VolumeCapabilities: req.GetVolumeCapabilities(),
		Parameters:         req.GetParameters(),
	}}, nil
}

// unsupported says why no volume is as asked for; empty if one can be.
func unsupported(capabilities []volume.Capability, parameters, mutable map[string]string) string {
	if err := volume.CheckCapabilities(capabilities); err != nil {
		return err.Error()
	}
	if err := checkParameters(parameters, capabilities); err != nil {
		return err.Error()
	}
	if len(mutable) > 0 {
		return "mutable parameters are not supported"
	}
	return ""
}

// GetCapacity says how much a new volume may have: nothing, where none could be
// as asked for.
func (c *Controller) GetCapacity(ctx context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	capabilities, err := volumeCapabilities(req.GetVolumeCapabilities())
	if err != nil {
		return nil, err
	}
	var bytes int64
	if reaches(req.GetAccessibleTopology()) && unsupported(capabilities, req.GetParameters(), nil) == "" {
		if bytes, err = c.volumes.Available(ctx); err != nil {
			return nil, err
		}
	}
	return &csi.GetCapacityResponse{
		AvailableCapacity: bytes,
		MaximumVolumeSize: wrapperspb.Int64(bytes),
	}, nil
}

// ListVolumes lists volumes by id, with the nodes that they are published to.
// A token is the UUID of the last volume of a page, so volumes may come and go
// between the pages.
func (c *Controller) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	if req.GetMaxEntries() < 0 {
		return nil, invalidField("max_entries", "it is negative")
	}
	after := req.GetStartingToken()
	if after != "" && !isToken(after) {
		return nil, ErrBadToken
	}
	all, err := c.volumes.List(ctx)
	if err != nil {
		return nil, err
	}
	start, _ := slices.BinarySearchFunc(all, after+"\x00", func(v volume.Volume, token string) int {
		return strings.Compare(v.UUID, token)
	})
	return listPage(all[start:], int(req.GetMaxEntries())), nil
}

// isToken says whether a token has the form that ListVolumes gives.
func isToken(s string) bool {
	u, err := uuid.Parse(s)
	return err == nil && u.String() == s
}

// listPage makes a page of at most limit volumes; 0 is no limit.
func listPage(volumes []volume.Volume, limit int) *csi.ListVolumesResponse {
	resp := &csi.ListVolumesResponse{}
	if limit > 0 && limit < len(volumes) {
		volumes = volumes[:limit]
		resp.NextToken = volumes[limit-1].UUID
	}
	for _, v := range volumes {
		status := &csi.ListVolumesResponse_VolumeStatus{}
		for _, a := range v.Attachments {
			status.PublishedNodeIds = append(status.PublishedNodeIds, a.Node.ID)
		}
		resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{Volume: csiVolume(v), Status: status})
	}
	return resp
}
