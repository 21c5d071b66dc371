package driver

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/mount"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// diskAttacher is what the node needs of package initiator.
type diskAttacher interface {
	Preflight(context.Context) error
	Attach(context.Context, initiator.Login) (initiator.Disk, error)
	Disk(initiator.Volume) (initiator.Disk, error)
	Disks(target string) ([]initiator.Disk, error)
	Attached(target string) (bool, error)
	Targets(ctx context.Context, prefix string) ([]string, error)
	Rescan(context.Context, initiator.Volume, int64) (initiator.Disk, error)
	Fail(ctx context.Context, target string) (bool, error)
	ShutOut(ctx context.Context, prefix string) ([]string, error)
	Detach(ctx context.Context, target string) error
}

// diskMounter is what the node needs of package mount.
type diskMounter interface {
	Filesystem(ctx context.Context, device string) (string, error)
	Format(ctx context.Context, device, fsType string, options []string) error
	Inspect(ctx context.Context, device, fsType string) (mount.Superblock, error)
	Wipe(ctx context.Context, device string) error
	Check(ctx context.Context, device, fsType string) error
	ReadProbe(ctx context.Context, device string) error
	Unused(ctx context.Context, device string) error
	Mount(ctx context.Context, device, number, path, fsType string, flags []string, readOnly bool) error
	Verify(path, number string, readOnly bool) error
	Bind(ctx context.Context, source, number, path string, flags []string, readOnly bool) error
	BindDevice(ctx context.Context, device, number, path string) error
	VerifyDevice(path, number string) error
	At(path string) ([]mount.Entry, error)
	Of(number, device string) ([]mount.Entry, error)
	Sync(ctx context.Context, path string) error
	Unmount(ctx context.Context, path string) error
	RemoveTarget(ctx context.Context, path string) error
	Grow(ctx context.Context, device, path, fsType string) error
	Statfs(ctx context.Context, path string) (mount.Stats, error)
}

var (
	_ diskAttacher = (*initiator.Initiator)(nil)
	_ diskMounter  = (*mount.Mounter)(nil)
)

// Node answers CSI's Node service: it attaches, formats, mounts, grows and
// measures volumes on this machine. Whatever it must know later is in the
// plugin's directory, the kernel or open-iscsi; none of it is in memory.
type Node struct {
	csi.UnimplementedNodeServer
	opts   NodeOptions
	id     NodeIdentity
	disks  diskAttacher
	mounts diskMounter
	stages stages
	locks  nodeLocks
	log    *slog.Logger
	// started is when this plugin did.
	started time.Time
	// tools tells what programs the node lacks.
	tools func() error
	ready *readiness
}

var _ csi.NodeServer = (*Node)(nil)

// NewNode opens the plugin's directory of validated options, and mints the
// node's identity where there is none.
func NewNode(opts NodeOptions, log *slog.Logger) (*Node, error) {
	if err := os.MkdirAll(opts.PluginDir, 0o700); err != nil {
		return nil, err
	}
	id, err := LoadNodeIdentity(opts.PluginDir, opts.NodeName)
	if err != nil {
		return nil, err
	}
	disks := initiator.New(initiator.Config{
		InitiatorName: InitiatorName(id.UUID), ReplacementTimeout: opts.ReplacementTimeout, Proc: opts.HostProc, Logger: log,
	})
	return newNode(opts, id, disks, mount.New(nil, log), log)
}

func newNode(opts NodeOptions, id NodeIdentity, disks diskAttacher, mounts diskMounter, log *slog.Logger) (*Node, error) {
	kept, err := openStages(opts.PluginDir)
	if err != nil {
		return nil, err
	}
	n := &Node{
		opts: opts, id: id, disks: disks, mounts: mounts, stages: kept, log: log, started: time.Now(), tools: mount.CheckTools,
	}
	n.ready = &readiness{look: n.missing}
	return n, nil
}

// ID is the node's id.
func (n *Node) ID() NodeID { return n.id.NodeID }

// Ready tells whether volumes can be staged here; the error names what is
// missing and the way out.
func (n *Node) Ready(ctx context.Context) (bool, error) {
	err := n.ready.check(ctx)
	return err == nil, err
}

// missing looks at what staging needs of this machine.
func (n *Node) missing(ctx context.Context) error {
	if err := n.disks.Preflight(ctx); err != nil {
		return err
	}
	return n.tools()
}

// NodeGetInfo tells who this node is and how many volumes it takes.
func (n *Node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId: n.id.NodeID.String(), MaxVolumesPerNode: n.opts.MaxVolumes, AccessibleTopology: segment(),
	}, nil
}

// NodeGetCapabilities tells what this node can do.
func (n *Node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var caps []*csi.NodeServiceCapability
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		caps = append(caps, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}},
		})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: caps}, nil
}

// volumeUUID returns the UUID in a volume_id, false for an id that csi-ietd
// has not made. Which pool it is in means nothing to a node.
func volumeUUID(volumeID string) (string, bool) {
	i := strings.LastIndexByte(volumeID, '.')
	if i < 1 || !isCanonicalUUID(volumeID[i+1:]) {
		return "", false
	}
	return volumeID[i+1:], true
}

// staged loads the stage of a volume that must be staged.
func (n *Node) staged(volumeID string) (*stage, error) {
	uuid, ok := volumeUUID(volumeID)
	if !ok {
		return nil, fmt.Errorf("%w: %s", volume.ErrNotFound, volumeID)
	}
	st, err := n.stages.load(uuid)
	if err != nil {
		return nil, err
	}
	if st == nil || !st.Staged || st.VolumeID != volumeID {
		return nil, fmt.Errorf("%w: %s is not staged on this node", volume.ErrNotFound, volumeID)
	}
	return st, nil
}
