package driver

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// NodeExpandVolume makes the node see a volume's new size: its own disks are
// read anew, and a file system grows while it is mounted.
func (n *Node) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	size, err := sizeRange(req.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	uuid, ok := volumeUUID(req.GetVolumeId())
	if !ok {
		return nil, fmt.Errorf("%w: %s", volume.ErrNotFound, req.GetVolumeId())
	}
	ctx, release, err := n.locks.acquire(ctx, uuid)
	if err != nil {
		return nil, err
	}
	defer release()
	st, err := n.stagedAt(req.GetVolumeId(), req.GetVolumePath())
	if err != nil {
		return nil, err
	}
	disk, err := n.disks.Rescan(ctx, st.volume(), size.Required)
	if err != nil {
		return nil, err
	}
	if size.Limit > 0 && disk.SizeBytes > size.Limit {
		return nil, fmt.Errorf("%w: the volume has %d bytes, more than capacity_range.limit_bytes", volume.ErrOutOfRange, disk.SizeBytes)
	}
	if !st.Capability.Block && !st.ReadOnly {
		// A disk that is not the mounted one would be grown behind the
		// kernel's back.
		if err := n.mounts.Verify(st.StagingPath, disk.Number, st.ReadOnly); err != nil {
			return nil, err
		}
		if err := n.mounts.Grow(ctx, disk.Path, st.StagingPath, st.Capability.FSType); err != nil {
			return nil, err
		}
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: disk.SizeBytes}, nil
}

// NodeGetVolumeStats measures a staged or published volume.
func (n *Node) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	st, err := n.stagedAt(req.GetVolumeId(), req.GetVolumePath())
	if err != nil {
		return nil, err
	}
	disk, err := n.disks.Disk(st.volume())
	if err != nil {
		return nil, err
	}
	if st.Capability.Block {
		return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
			{Unit: csi.VolumeUsage_BYTES, Total: disk.SizeBytes},
		}}, nil
	}
	if err := n.mountedAt(req.GetVolumePath(), disk.Number); err != nil {
		return nil, err
	}
	s, err := n.mounts.Statfs(ctx, req.GetVolumePath())
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: s.TotalBytes, Used: s.UsedBytes, Available: s.AvailableBytes},
		{Unit: csi.VolumeUsage_INODES, Total: s.TotalInodes, Used: s.UsedInodes, Available: s.AvailableInodes},
	}}, nil
}

// stagedAt returns the stage of a volume that is staged or published at path.
func (n *Node) stagedAt(volumeID, path string) (*stage, error) {
	st, err := n.staged(volumeID)
	if err != nil {
		return nil, err
	}
	if st.StagingPath != path && st.target(path) == nil {
		return nil, fmt.Errorf("%w: %s is not at %s", volume.ErrNotFound, volumeID, path)
	}
	return st, nil
}

// mountedAt returns ErrNotFound unless the disk's file system lies at path: its
// figures would be those of the node's own disk.
func (n *Node) mountedAt(path, number string) error {
	entries, err := n.mounts.At(path)
	if err != nil {
		return err
	}
	if len(entries) == 0 || entries[len(entries)-1].Number != number {
		return fmt.Errorf("%w: it is not mounted at %s", volume.ErrNotFound, path)
	}
	return nil
}
