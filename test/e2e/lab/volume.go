package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// callTimeout is kubelet's and the sidecars' patience for one call.
const callTimeout = 2 * time.Minute

// Claim is what a user asks for.
type Claim struct {
	Name       string
	Size       int64  // bytes
	FSType     string // empty: the driver's default
	Block      bool   // a raw device instead of a file system
	Parameters map[string]string
}

// Volume drives one volume through CSI as external-provisioner,
// external-attacher, external-resizer and kubelet would, with their order,
// paths and habits.
type Volume struct {
	Claim Claim
	ID    string
	Size  int64 // as the controller said last

	controller *Controller
	context    map[string]string

	mu        sync.Mutex
	published map[*Node]map[string]string // node → publish_context, Kubernetes' VolumeAttachments
}

// Create provisions a volume. A second call with the same claim is what a
// retry of the provisioner does.
func (c *Controller) Create(ctx context.Context, claim Claim) (*Volume, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v := &Volume{Claim: claim, controller: c, published: map[*Node]map[string]string{}}
	answer, err := c.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Secrets:            c.lab.Secrets.request(),
		Name:               claim.Name,
		CapacityRange:      &csi.CapacityRange{RequiredBytes: claim.Size},
		VolumeCapabilities: []*csi.VolumeCapability{v.capability()},
		Parameters:         claim.Parameters,
	})
	if err != nil {
		return nil, err
	}
	v.ID, v.Size, v.context = answer.Volume.VolumeId, answer.Volume.CapacityBytes, answer.Volume.VolumeContext
	if v.Size < claim.Size {
		return v, fmt.Errorf("asked for %d bytes, got %d", claim.Size, v.Size)
	}
	return v, nil
}

// capability is ReadWriteOnce as the sidecars translate it: they say that
// several pods of one node may share the volume where the driver knows that
// word.
func (v *Volume) capability() *csi.VolumeCapability {
	mode := csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	if v.controller.Can(csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER) {
		mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}}
	if v.Claim.Block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		c.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: v.Claim.FSType}}
	}
	return c
}

// PublishContext is what the controller gave for a node at the last Publish.
func (v *Volume) PublishContext(n *Node) map[string]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.published[n]
}

// Publish attaches the volume to a node (ControllerPublishVolume).
func (v *Volume) Publish(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := v.controller.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		Secrets:  v.controller.lab.Secrets.request(),
		VolumeId: v.ID, NodeId: n.ID, VolumeCapability: v.capability(), VolumeContext: v.context,
	})
	if err != nil {
		return err
	}
	v.controller.lab.Secrets.saw(answer.PublishContext)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.published[n] = answer.PublishContext
	return nil
}

// Unpublish detaches the volume from a node (ControllerUnpublishVolume): the
// fence.
func (v *Volume) Unpublish(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := v.controller.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{Secrets: v.controller.lab.Secrets.request(), VolumeId: v.ID, NodeId: n.ID})
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.published, n)
	return nil
}

// Stage is kubelet's MountDevice (NodeStageVolume).
func (v *Volume) Stage(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := n.Guest.MkdirAll(ctx, v.StagingPath(), 0o750); err != nil {
		return err
	}
	if err := v.saveVolumeData(ctx, n, v.stagingDir()); err != nil {
		return err
	}
	_, err := n.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		Secrets:  v.controller.lab.Secrets.request(),
		VolumeId: v.ID, PublishContext: v.PublishContext(n), StagingTargetPath: v.StagingPath(),
		VolumeCapability: v.capability(), VolumeContext: v.context,
	})
	return err
}

// saveVolumeData writes the file that tells kubelet after a restart what it
// mounted; block volumes have theirs in a directory of their own.
func (v *Volume) saveVolumeData(ctx context.Context, n *Node, dir string) error {
	if v.Claim.Block {
		return nil
	}
	data := fmt.Appendf(nil, `{"driverName":%q,"volumeHandle":%q}`, DriverName, v.ID)
	return n.Guest.WriteFile(ctx, path.Join(dir, "vol_data.json"), data, 0o644)
}

// Unstage is kubelet's UnmountDevice (NodeUnstageVolume).
func (v *Volume) Unstage(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := n.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.ID, StagingTargetPath: v.StagingPath()})
	if err != nil || v.Claim.Block {
		return err
	}
	return removeAll(ctx, n.Guest, v.StagingPath(), path.Join(v.stagingDir(), "vol_data.json"), v.stagingDir())
}

// removeAll removes in order what exists; a directory that is not empty, as
// one with something still mounted, is an error.
func removeAll(ctx context.Context, g *Guest, paths ...string) error {
	for _, p := range paths {
		if err := g.Remove(ctx, p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Mount is kubelet's SetUp for a pod (NodePublishVolume). It returns the path
// that the pod would see: a directory, or for a block volume a device.
func (v *Volume) Mount(ctx context.Context, n *Node, pod string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	target := v.TargetPath(pod)
	if err := n.Guest.MkdirAll(ctx, path.Dir(target), 0o750); err != nil {
		return "", err
	}
	if err := v.saveVolumeData(ctx, n, path.Dir(target)); err != nil {
		return "", err
	}
	_, err := n.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		Secrets:  v.controller.lab.Secrets.request(),
		VolumeId: v.ID, PublishContext: v.PublishContext(n), StagingTargetPath: v.StagingPath(),
		TargetPath: target, VolumeCapability: v.capability(), VolumeContext: v.context,
	})
	return target, err
}

// Unmount is kubelet's TearDown for a pod (NodeUnpublishVolume).
func (v *Volume) Unmount(ctx context.Context, n *Node, pod string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	target := v.TargetPath(pod)
	_, err := n.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID, TargetPath: target})
	if err != nil || v.Claim.Block {
		return err
	}
	return removeAll(ctx, n.Guest, target, path.Join(path.Dir(target), "vol_data.json"), path.Dir(target))
}

// Attach is all that happens between a pod's scheduling and its start:
// Publish, Stage, Mount.
func (v *Volume) Attach(ctx context.Context, n *Node, pod string) (string, error) {
	if err := v.Publish(ctx, n); err != nil {
		return "", fmt.Errorf("ControllerPublishVolume: %w", err)
	}
	if err := v.Stage(ctx, n); err != nil {
		return "", fmt.Errorf("NodeStageVolume: %w", err)
	}
	target, err := v.Mount(ctx, n, pod)
	if err != nil {
		return "", fmt.Errorf("NodePublishVolume: %w", err)
	}
	return target, nil
}

// Detach undoes Attach: Unmount, Unstage, Unpublish.
func (v *Volume) Detach(ctx context.Context, n *Node, pod string) error {
	if err := v.Unmount(ctx, n, pod); err != nil {
		return fmt.Errorf("NodeUnpublishVolume: %w", err)
	}
	if err := v.Unstage(ctx, n); err != nil {
		return fmt.Errorf("NodeUnstageVolume: %w", err)
	}
	if err := v.Unpublish(ctx, n); err != nil {
		return fmt.Errorf("ControllerUnpublishVolume: %w", err)
	}
	return nil
}

// Expand grows the volume, and on each node that a pod of the volume runs on
// what it sees, as external-resizer and then kubelet do.
func (v *Volume) Expand(ctx context.Context, size int64, pods map[*Node]string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	grow := &csi.CapacityRange{RequiredBytes: size}
	answer, err := v.controller.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		Secrets:  v.controller.lab.Secrets.request(),
		VolumeId: v.ID, CapacityRange: grow, VolumeCapability: v.capability(),
	})
	if err != nil {
		return fmt.Errorf("ControllerExpandVolume: %w", err)
	}
	v.Size = answer.CapacityBytes
	if !answer.NodeExpansionRequired {
		return nil
	}
	for n, pod := range pods {
		_, err := n.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
			Secrets:  v.controller.lab.Secrets.request(),
			VolumeId: v.ID, VolumePath: v.TargetPath(pod), StagingTargetPath: v.StagingPath(),
			CapacityRange: grow, VolumeCapability: v.capability(),
		})
		if err != nil {
			return fmt.Errorf("NodeExpandVolume: %w", err)
		}
	}
	return nil
}

// Stats asks how full the volume is where a pod has it.
func (v *Volume) Stats(ctx context.Context, n *Node, pod string) ([]*csi.VolumeUsage, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := n.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{
		VolumeId: v.ID, VolumePath: v.TargetPath(pod), StagingTargetPath: v.StagingPath(),
	})
	return answer.GetUsage(), err
}

// Delete removes the volume and its data.
func (v *Volume) Delete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := v.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{Secrets: v.controller.lab.Secrets.request(), VolumeId: v.ID})
	return err
}
