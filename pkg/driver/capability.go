package driver

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// volumeCapability translates one CSI capability. What the message lacks is
// ErrInvalidField; what csi-ietd has not is for [volume.Capability.Check].
func volumeCapability(field string, c *csi.VolumeCapability) (volume.Capability, error) {
	out := volume.Capability{Mode: volume.AccessMode(c.GetAccessMode().GetMode().String())}
	switch t := c.GetAccessType().(type) {
	case *csi.VolumeCapability_Block:
		out.Block = true
	case *csi.VolumeCapability_Mount:
		if out.FSType = t.Mount.GetFsType(); out.FSType == "" {
			out.FSType = volume.Ext4
		}
	default:
		return out, invalidField(field+".access_type", "it is required")
	}
	if c.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_UNKNOWN {
		return out, invalidField(field+".access_mode", "it is required")
	}
	return out, nil
}

// volumeCapabilities translates a list of CSI capabilities.
func volumeCapabilities(cs []*csi.VolumeCapability) ([]volume.Capability, error) {
	out := make([]volume.Capability, 0, len(cs))
	for i, c := range cs {
		capability, err := volumeCapability(fmt.Sprintf("volume_capabilities[%d]", i), c)
		if err != nil {
			return nil, err
		}
		out = append(out, capability)
	}
	return out, nil
}

// sizeRange translates a CSI capacity range; none is no bounds.
func sizeRange(r *csi.CapacityRange) (volume.SizeRange, error) {
	if r.GetRequiredBytes() < 0 {
		return volume.SizeRange{}, invalidField("capacity_range.required_bytes", "it is negative")
	}
	if r.GetLimitBytes() < 0 {
		return volume.SizeRange{}, invalidField("capacity_range.limit_bytes", "it is negative")
	}
	return volume.SizeRange{Required: r.GetRequiredBytes(), Limit: r.GetLimitBytes()}, nil
}
