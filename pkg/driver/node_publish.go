package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/mount"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// NodePublishVolume shows a staged volume at the target path: its mounted file
// system, or the device node of a raw block volume. The kernel knows no device
// node that is read-only for one of several users: where the volume itself is
// not attached read-only, it is kubelet that gives the container a device
// cgroup without writing.
func (n *Node) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	capability, err := nodeCapability(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	flags := req.GetVolumeCapability().GetMount().GetMountFlags()
	if err := mount.CheckFlags(flags); err != nil {
		return nil, invalidField("volume_capability.mount.mount_flags", "%v", err)
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
	st, err := n.publishable(uuid, req, capability)
	if err != nil {
		return nil, err
	}
	want := publishedTarget{Path: req.GetTargetPath(), Mode: capability.Mode}
	want.ReadOnly = req.GetReadonly() || st.ReadOnly || capability.Mode.ReadOnly()
	if err := n.publish(ctx, uuid, st, want, flags); err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// publishable returns the stage that a Publish builds on.
func (n *Node) publishable(uuid string, req *csi.NodePublishVolumeRequest, capability volume.Capability) (*stage, error) {
	st, err := n.stages.load(uuid)
	switch {
	case err != nil:
		return nil, err
	case req.GetStagingTargetPath() == "" || st == nil || !st.Staged || st.VolumeID != req.GetVolumeId():
		return nil, fmt.Errorf("%w: %s", errNotStaged, req.GetVolumeId())
	case st.StagingPath != req.GetStagingTargetPath():
		return nil, fmt.Errorf("%w: %s is staged at %s", errNotStaged, req.GetVolumeId(), st.StagingPath)
	case st.Capability.Block != capability.Block || st.Capability.FSType != capability.FSType:
		return nil, fmt.Errorf("%w: %s is staged with another capability", volume.ErrIncompatible, req.GetVolumeId())
	}
	return st, nil
}

// errNotStaged: Publish before Stage.
var errNotStaged = errors.New("the volume is not staged")

// publish mounts one target, or finds it mounted as wanted.
func (n *Node) publish(ctx context.Context, uuid string, st *stage, want publishedTarget, flags []string) error {
	if err := n.forgetUnmounted(st); err != nil {
		return err
	}
	if err := checkSharing(st, want); err != nil {
		return err
	}
	if err := n.healthy(ctx, st); errors.Is(err, initiator.ErrRecovering) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w: the stage at %s went bad: %w", errNotStaged, st.StagingPath, err)
	}
	disk, err := n.disks.Disk(st.volume())
	if err != nil {
		return err
	}
	if err := n.remember(uuid, st, want); err != nil {
		return err
	}
	if err := n.show(ctx, st, want, disk, flags); err != nil {
		return n.abandonTarget(ctx, uuid, st, want.Path, err)
	}
	return nil
}

// show mounts one target of a healthy stage.
func (n *Node) show(ctx context.Context, st *stage, want publishedTarget, disk initiator.Disk, flags []string) error {
	done, err := n.published(ctx, st, want, disk)
	if done || err != nil {
		return err
	}
	if st.Capability.Block {
		return n.mounts.BindDevice(ctx, disk.Path, disk.Number, want.Path)
	}
	return n.mounts.Bind(ctx, st.StagingPath, disk.Number, want.Path, flags, want.ReadOnly)
}

// abandonTarget undoes a Publish that failed for good: kubelet sends no
// Unpublish after such an error.
func (n *Node) abandonTarget(ctx context.Context, uuid string, st *stage, path string, cause error) error {
	if !isFinal(cause) {
		return cause
	}
	err := n.mounts.RemoveTarget(ctx, path)
	if err == nil {
		st.dropTarget(path)
		err = n.stages.save(uuid, st)
	}
	if err != nil {
		return fmt.Errorf("%w: %w; %w", errLeftBehind, cause, err)
	}
	return cause
}

// forgetUnmounted drops the targets that were to be mounted and are not: no
// call is at work on them, since this one has the volume's lock.
func (n *Node) forgetUnmounted(st *stage) error {
	var failed error
	st.Targets = slices.DeleteFunc(st.Targets, func(t publishedTarget) bool {
		entries, err := n.mounts.At(t.Path)
		failed = errors.Join(failed, err)
		return err == nil && len(entries) == 0
	})
	return failed
}

// checkSharing compares a target with the others of the volume, and with an
// earlier Publish at its own path.
func checkSharing(st *stage, want publishedTarget) error {
	for _, t := range st.Targets {
		switch {
		case t.Path == want.Path && t.ReadOnly != want.ReadOnly:
			return fmt.Errorf("%w: %s is published with read-only %v", volume.ErrIncompatible, t.Path, t.ReadOnly)
		case t.Path != want.Path && (t.Mode == volume.SingleNodeSingleWriter || want.Mode == volume.SingleNodeSingleWriter):
			return fmt.Errorf("%w: a single writer has it at %s", volume.ErrInUse, t.Path)
		}
	}
	return nil
}

// remember writes a target into the stage file, before it is mounted.
func (n *Node) remember(uuid string, st *stage, want publishedTarget) error {
	if st.target(want.Path) != nil {
		return nil
	}
	st.Targets = append(st.Targets, want)
	return n.stages.save(uuid, st)
}

// published is true when the target is mounted as wanted; a mount of an
// earlier disk, or half of one, is taken away.
func (n *Node) published(ctx context.Context, st *stage, want publishedTarget, disk initiator.Disk) (bool, error) {
	entries, err := n.mounts.At(want.Path)
	if err != nil || len(entries) == 0 {
		return false, err
	}
	if st.Capability.Block {
		err = n.mounts.VerifyDevice(want.Path, disk.Number)
	} else {
		err = n.mounts.Verify(want.Path, disk.Number, want.ReadOnly)
	}
	if err == nil {
		return true, nil
	}
	n.log.Warn("unmounting what lies at a target path", "path", want.Path, "err", err)
	return false, n.mounts.Unmount(ctx, want.Path)
}

// NodeUnpublishVolume unmounts a target path and removes it.
func (n *Node) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	uuid, ok := volumeUUID(req.GetVolumeId())
	if !ok {
		return &csi.NodeUnpublishVolumeResponse{}, nil
	}
	ctx, release, err := n.locks.acquire(ctx, uuid)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := n.mounts.RemoveTarget(ctx, req.GetTargetPath()); err != nil {
		return nil, err
	}
	st, err := n.stages.load(uuid)
	if err != nil && !errors.Is(err, errBadStage) {
		return nil, err
	}
	if st != nil && st.target(req.GetTargetPath()) != nil {
		st.dropTarget(req.GetTargetPath())
		if err := n.stages.save(uuid, st); err != nil {
			return nil, err
		}
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
