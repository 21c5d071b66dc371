package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// NodeUnstageVolume undoes NodeStageVolume and proves it: no mount, no disk, no
// session, no record. It needs no memory of the volume, since the target's
// name follows from the volume_id; an id that csi-ietd has not made was never
// here.
func (n *Node) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	uuid, ok := volumeUUID(req.GetVolumeId())
	if !ok {
		return &csi.NodeUnstageVolumeResponse{}, nil
	}
	locked, release, err := n.locks.acquire(ctx, uuid)
	if err != nil {
		return nil, errors.Join(err, n.unstick(ctx, uuid))
	}
	ctx = locked
	defer release()
	st, err := n.stages.load(uuid)
	if err != nil && !errors.Is(err, errBadStage) {
		return nil, err
	}
	n.wipeHalfMade(ctx, uuid, st)
	if err := n.teardown(ctx, uuid, st, req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	// Last of all: while the file is there, somebody comes back.
	if err := n.stages.remove(uuid); err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// unstick helps an earlier Unstage whose unmount is stuck and whose caller has
// gone: a session that is lost by now is ended.
func (n *Node) unstick(ctx context.Context, uuid string) error {
	if n.locks.stuckFor(uuid) < n.opts.DetachGrace {
		return nil
	}
	_, err := n.disks.Fail(ctx, volume.TargetName(uuid))
	return err
}

// teardown takes a volume off this node, in the order mounts, device, session,
// record. Its staging paths are the stage's, which may be nil, and those given.
// It refuses while pods use the volume.
func (n *Node) teardown(ctx context.Context, uuid string, st *stage, paths ...string) error {
	target := volume.TargetName(uuid)
	if st != nil && !slices.Contains(paths, st.StagingPath) {
		paths = append(paths, st.StagingPath)
	}
	if err := n.unpublished(target, st, paths); err != nil {
		return err
	}
	for _, path := range paths {
		if err := n.unmountStage(ctx, target, path); err != nil {
			return err
		}
	}
	if err := n.unused(ctx, target); err != nil {
		return err
	}
	return n.disks.Detach(ctx, target)
}

// unpublished returns ErrInUse while the volume is mounted anywhere but at its
// staging paths: by what the stage remembers, and by the kernel's table for
// the disks that are there.
func (n *Node) unpublished(target string, st *stage, stagingPaths []string) error {
	inUse := func(path string) error {
		return fmt.Errorf("%w: mounted at %s; unpublish it there first", volume.ErrInUse, path)
	}
	if st != nil {
		for _, t := range st.Targets {
			if entries, err := n.mounts.At(t.Path); err != nil || len(entries) > 0 {
				return errors.Join(inUse(t.Path), err)
			}
		}
	}
	disks, err := n.disks.Disks(target)
	if err != nil {
		return err
	}
	for _, d := range disks {
		entries, err := n.mounts.Of(d.Number, d.Path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !slices.Contains(stagingPaths, e.Path) {
				return inUse(e.Path)
			}
		}
	}
	return nil
}

// unmountStage unmounts a staging path. While the target is lost the unmount
// cannot end; after a grace the lost sessions are ended, and what was not
// written by then is lost: no other node could have got the volume with it
// either.
func (n *Node) unmountStage(ctx context.Context, target, path string) error {
	entries, err := n.mounts.At(path)
	if err != nil || len(entries) == 0 {
		return err
	}
	patient, cancel := context.WithTimeout(ctx, n.opts.DetachGrace)
	defer cancel()
	if err := n.mounts.Sync(patient, path); err != nil {
		n.log.Error("cannot write back a file system before it is unmounted", "path", path, "err", err)
	}
	err = n.mounts.Unmount(patient, path)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return err
	}
	if err := n.giveUp(ctx, target); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return n.mounts.Unmount(ctx, path)
}

// giveUp ends the lost sessions to a target, as soon as the kernel knows them
// for lost, and returns when nothing is stuck any more.
func (n *Node) giveUp(ctx context.Context, target string) error {
	ticker := time.NewTicker(giveUpInterval)
	defer ticker.Stop()
	for {
		lost, err := n.disks.Fail(ctx, target)
		if err != nil {
			return err
		}
		if lost {
			n.log.Error("the target is lost: detaching without what was not written yet", "target", target)
			return child.AwaitIdle(ctx)
		}
		select {
		case <-child.Idle(ctx):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// giveUpInterval is how often a session is looked at that may get lost.
const giveUpInterval = 500 * time.Millisecond

// unused makes sure that no other mount namespace has the disk mounted either.
func (n *Node) unused(ctx context.Context, target string) error {
	disks, err := n.disks.Disks(target)
	if err != nil {
		return err
	}
	return n.notHeld(ctx, slices.DeleteFunc(disks, func(d initiator.Disk) bool { return !d.Live }))
}

// notHeld returns ErrInUse when anybody holds one of the disks.
func (n *Node) notHeld(ctx context.Context, disks []initiator.Disk) error {
	for _, d := range disks {
		if err := n.mounts.Unused(ctx, d.Path); err != nil {
			return fmt.Errorf("%w: %w", volume.ErrInUse, err)
		}
	}
	return nil
}
