package driver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/mount"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// NodeStageVolume attaches a volume and mounts its file system at the staging
// path; a raw block volume is attached alone.
//
// The order of events: what an earlier staging left is torn down; the stage
// file is written with a new nonce, durably; then login, identity check,
// format if proven empty, mount; at last the file says that it is staged. A
// stage that is live and healthy is left as it is. What fails for good is
// undone before it is told.
func (n *Node) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	uuid, ok := volumeUUID(req.GetVolumeId())
	if !ok {
		return nil, fmt.Errorf("%w: %s", volume.ErrNotFound, req.GetVolumeId())
	}
	want, login, err := n.plan(uuid, req)
	if err != nil {
		return nil, err
	}
	ctx, release, err := n.locks.acquire(ctx, uuid)
	if err != nil {
		return nil, err
	}
	defer release()
	if done, err := n.restage(ctx, uuid, want); done || err != nil {
		return &csi.NodeStageVolumeResponse{}, err
	}
	if err := n.stage(ctx, uuid, want, login); err != nil {
		return nil, n.abandon(ctx, uuid, want, err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

// abandon undoes a stage that failed for good: kubelet sends no Unstage after
// such an error, and the volume may be detached under what is left. Where that
// cannot be undone the error says so, and is not final.
func (n *Node) abandon(ctx context.Context, uuid string, st *stage, cause error) error {
	if !isFinal(cause) {
		return cause
	}
	n.wipeHalfMade(ctx, uuid, st)
	if err := n.teardown(ctx, uuid, st); err != nil {
		return fmt.Errorf("%w: %w; %w", errLeftBehind, cause, err)
	}
	if st.Formatting {
		return cause // the file tells the next Stage
	}
	return errors.Join(cause, n.stages.remove(uuid))
}

// errLeftBehind: a staging failed, or is not wanted any more, and something of
// it is still on the node.
var errLeftBehind = errors.New("something of a failed or former staging is still on this node")

// wipeHalfMade takes half a file system off a volume that is still attached by
// the stage that was making it. After the stage nobody knows that it is no data.
func (n *Node) wipeHalfMade(ctx context.Context, uuid string, st *stage) {
	if st == nil || !st.Formatting || st.Staged {
		return
	}
	disk, err := n.disks.Disk(st.volume())
	if err == nil {
		err = n.mounts.Wipe(ctx, disk.Path)
	}
	if err == nil {
		err = n.setFormatting(uuid, st, false)
	}
	if err != nil {
		n.log.Warn("half a file system stays on a volume", "volume", st.VolumeID, "err", err)
	}
}

// plan checks a request and says what it asks for.
func (n *Node) plan(uuid string, req *csi.NodeStageVolumeRequest) (*stage, initiator.Login, error) {
	capability, err := nodeCapability(req.GetVolumeCapability())
	if err != nil {
		return nil, initiator.Login{}, err
	}
	flags := req.GetVolumeCapability().GetMount().GetMountFlags()
	if err := mount.CheckFlags(flags); err != nil {
		return nil, initiator.Login{}, invalidField("volume_capability.mount.mount_flags", "%v", err)
	}
	pc, err := OpenPublishContext(req.GetPublishContext(), n.id)
	if err != nil {
		return nil, initiator.Login{}, err
	}
	if pc.TargetName != volume.TargetName(uuid) {
		return nil, initiator.Login{}, badContext(pcTargetName, "is of another volume than volume_id")
	}
	settings, err := nodeSettings(req.GetVolumeContext(), capability)
	if err != nil {
		return nil, initiator.Login{}, err
	}
	st := &stage{
		VolumeID: req.GetVolumeId(), StagingPath: req.GetStagingTargetPath(),
		Capability: capability, MountFlags: flags,
		ReadOnly:   pc.ReadOnly || capability.Mode.ReadOnly(),
		Generation: pc.Generation, User: pc.Credentials.User,
		TargetName: pc.TargetName, LUN: pc.LUN, NAA: pc.NAA, SizeBytes: pc.SizeBytes,
		mkfsOptions: settings.mkfsOptions,
	}
	return st, initiator.Login{
		Portals: pc.Portals, Secret: pc.Credentials.Secret,
		MutualUser: pc.Credentials.MutualUser, MutualSecret: pc.Credentials.MutualSecret,
		ReplacementTimeout: settings.replacementTimeout,
	}, nil
}

// nodeCapability is the capability of a Stage or Publish, which must be one
// that csi-ietd has.
func nodeCapability(c *csi.VolumeCapability) (volume.Capability, error) {
	capability, err := volumeCapability("volume_capability", c)
	if err != nil {
		return capability, err
	}
	return capability, capability.Check()
}

// restage deals with what an earlier Stage left: true when that is what is
// wanted, live and healthy. Anything else is torn down, or refused where pods
// use it.
func (n *Node) restage(ctx context.Context, uuid string, want *stage) (done bool, err error) {
	old, err := n.stages.load(uuid)
	if errors.Is(err, errBadStage) {
		n.log.Warn("ignoring a stage file that does not parse", "volume", want.VolumeID, "err", err)
	} else if err != nil {
		return false, err
	}
	if old != nil && old.Staged && old.Generation == want.Generation {
		bad := n.healthy(ctx, old)
		switch {
		case bad == nil && sameStage(old, want):
			return true, nil
		case bad == nil:
			return false, fmt.Errorf("%w: %s is staged at %s with another capability; unstage it first",
				volume.ErrIncompatible, old.VolumeID, old.StagingPath)
		case ctx.Err() != nil || errors.Is(bad, initiator.ErrRecovering):
			// What is not written yet is written when the target is back.
			return false, bad
		}
		n.log.Warn("a staged volume went bad; staging it anew", "volume", want.VolumeID, "err", bad)
	}
	want.Formatting = interruptedFormat(old, want)
	if err := n.teardown(ctx, uuid, old, want.StagingPath); err != nil {
		return false, fmt.Errorf("%w: %w", errLeftBehind, err)
	}
	return false, nil
}

// interruptedFormat is true when this node's mkfs was cut short and the volume
// has been nowhere else since: the generation is the same. Under another one
// the volume may have been formatted and filled elsewhere meanwhile.
func interruptedFormat(old, want *stage) bool {
	return old != nil && old.Formatting && !old.Staged && old.Generation == want.Generation &&
		old.VolumeID == want.VolumeID && old.Capability.FSType == want.Capability.FSType
}

func sameStage(old, want *stage) bool {
	sameKind := old.Capability.Block == want.Capability.Block && old.Capability.FSType == want.Capability.FSType
	return sameKind && old.VolumeID == want.VolumeID && old.StagingPath == want.StagingPath &&
		old.ReadOnly == want.ReadOnly && slices.Equal(old.MountFlags, want.MountFlags)
}

// healthy returns nil when a stage's disk is there, is the promised one, takes
// reads, and is what lies at the staging path.
func (n *Node) healthy(ctx context.Context, st *stage) error {
	disk, err := n.disks.Disk(st.volume())
	if err != nil {
		return err
	}
	if !st.Capability.Block {
		if err := n.mounts.Verify(st.StagingPath, disk.Number, st.ReadOnly); err != nil {
			return err
		}
	}
	return n.mounts.ReadProbe(ctx, disk.Path)
}

// stage does the steps on a clean node.
func (n *Node) stage(ctx context.Context, uuid string, st *stage, login initiator.Login) error {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	st.Nonce = hex.EncodeToString(nonce[:])
	if err := n.stages.save(uuid, st); err != nil {
		return err
	}
	login.Volume = st.volume()
	disk, err := n.disks.Attach(ctx, login)
	if err != nil {
		return err
	}
	if !st.Capability.Block {
		if err := n.mountStage(ctx, uuid, st, disk); err != nil {
			return err
		}
	}
	st.Staged = true
	return n.stages.save(uuid, st)
}

// mountStage puts a volume's file system at the staging path, making it where
// the volume is proven empty, repairing it where it was not unmounted cleanly
// and growing it where the volume has grown.
func (n *Node) mountStage(ctx context.Context, uuid string, st *stage, disk initiator.Disk) error {
	fsType := st.Capability.FSType
	super, err := n.mounts.Inspect(ctx, disk.Path, fsType)
	if err != nil && !errors.Is(err, mount.ErrOtherFilesystem) {
		return err
	}
	if !super.Sound || st.Formatting {
		if err := n.ensureFilesystem(ctx, uuid, st, disk); err != nil {
			return err
		}
		if super, err = n.mounts.Inspect(ctx, disk.Path, fsType); err != nil {
			return err
		}
	}
	if !st.ReadOnly && !super.Clean {
		err := unhurried(ctx, "fsck "+disk.Path, func(ctx context.Context) error {
			return n.mounts.Check(ctx, disk.Path, fsType)
		})
		if err != nil {
			return err
		}
	}
	if err := n.mounts.Mount(ctx, disk.Path, disk.Number, st.StagingPath, fsType, st.MountFlags, st.ReadOnly); err != nil {
		return err
	}
	if st.ReadOnly || super.Bytes+super.BlockBytes > disk.SizeBytes {
		return nil
	}
	return n.mounts.Grow(ctx, disk.Path, st.StagingPath, fsType)
}

// ensureFilesystem returns nil when the volume has the wanted file system. It
// makes one on a volume that is proven empty, and on one whose mkfs by this
// node was interrupted: the stage file says so before mkfs begins.
func (n *Node) ensureFilesystem(ctx context.Context, uuid string, st *stage, disk initiator.Disk) error {
	want := st.Capability.FSType
	found, err := n.mounts.Filesystem(ctx, disk.Path)
	switch {
	case st.Formatting && (err == nil || errors.Is(err, mount.ErrNotEmpty)) && !st.ReadOnly:
		if err := n.mounts.Wipe(ctx, disk.Path); err != nil {
			return err
		}
	case err != nil:
		return err
	case found == want:
		return nil
	case found != "":
		return fmt.Errorf("%w: %s, not %s", mount.ErrOtherFilesystem, found, want)
	case st.ReadOnly:
		return fmt.Errorf("%w: the volume has no file system and may not be written to", mount.ErrOtherFilesystem)
	}
	if err := n.setFormatting(uuid, st, true); err != nil {
		return err
	}
	done := *st
	err = unhurried(ctx, "mkfs "+disk.Path, func(ctx context.Context) error {
		if err := n.mounts.Format(ctx, disk.Path, want, done.mkfsOptions); err != nil {
			return err
		}
		return n.setFormatting(uuid, &done, false)
	})
	if err == nil {
		st.Formatting = false
	}
	return err
}

// longestWork bounds a mkfs or fsck: of the largest volume on a slow target.
const longestWork = 24 * time.Hour

// unhurried runs what must not be cut short by its caller's deadline, which is
// two minutes of kubelet's: a mkfs or fsck that is killed begins anew at every
// call and may never end. The volume's lock is held until it has ended; f must
// not touch what its caller reads after ctx has ended.
func unhurried(ctx context.Context, what string, f func(context.Context) error) error {
	return child.Do(ctx, what, func() error {
		long, cancel := context.WithTimeout(context.WithoutCancel(ctx), longestWork)
		defer cancel()
		return f(long)
	})
}

func (n *Node) setFormatting(uuid string, st *stage, on bool) error {
	st.Formatting = on
	return n.stages.save(uuid, st)
}
