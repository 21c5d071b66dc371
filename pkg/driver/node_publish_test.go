package driver

import (
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/mount"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

func TestPublishAndUnpublish(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	for range 2 {
		r.must(r.publishVolume(testTarget))
		r.restart()
	}
	r.must(r.publishVolume(testTarget + "2"))
	if len(r.w.mounts) != 3 {
		t.Errorf("mounts %v", r.w.mounts)
	}
	for range 2 {
		r.must(r.unpublishVolume(testTarget))
	}
	r.refused(r.unstageVolume(), volume.ErrInUse)
	r.must(r.unpublishVolume(testTarget + "2"))
	r.must(r.unstageVolume())
	r.gone()
}

func TestPublishBeforeStage(t *testing.T) {
	r := newNodeRig(t)
	r.refused(r.publishVolume(testTarget), errNotStaged)
	r.must(r.stageVolume())
	_, err := r.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: testVolumeID, TargetPath: testTarget, VolumeCapability: r.cap,
	})
	r.refused(err, errNotStaged)
	if errorCode(err) != codes.FailedPrecondition {
		t.Errorf("code %v", errorCode(err))
	}
}

func TestPublishOfABadStage(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	r.w.lost = true
	r.refused(r.publishVolume(testTarget), initiator.ErrNotAttached)
	if _, ok := r.w.mounts[testTarget]; ok {
		t.Error("mounted")
	}
}

// A mount of a disk that is gone lies at the target.
func TestPublishOverAStaleMount(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	r.w.mounts[testTarget] = worldMount{"8:64", true, false}
	r.must(r.publishVolume(testTarget))
	if r.w.mounts[testTarget] != (worldMount{r.w.number, false, false}) {
		t.Errorf("mounts %v", r.w.mounts)
	}
}

func TestPublishAgainReadOnly(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	r.must(r.publishVolume(testTarget))
	_, err := r.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: testVolumeID, StagingTargetPath: testStaging, TargetPath: testTarget, VolumeCapability: r.cap, Readonly: true,
	})
	r.refused(err, volume.ErrIncompatible)
	if errorCode(err) != codes.AlreadyExists {
		t.Errorf("code %v", errorCode(err))
	}
}

func TestSingleWriter(t *testing.T) {
	r := newNodeRig(t)
	r.cap = nodeMountCapability("ext4", csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER)
	r.must(r.stageVolume())
	r.must(r.publishVolume(testTarget))
	r.must(r.publishVolume(testTarget))
	err := r.publishVolume(testTarget + "2")
	r.refused(err, volume.ErrInUse)
	if errorCode(err) != codes.FailedPrecondition {
		t.Errorf("code %v", errorCode(err))
	}
	r.must(r.unpublishVolume(testTarget))
	r.must(r.publishVolume(testTarget + "2"))
}

func TestPublishBlock(t *testing.T) {
	r := newNodeRig(t)
	r.cap = nodeBlockCapability()
	r.must(r.stageVolume())
	if len(r.w.mounts) != 0 || r.w.fs != "" {
		t.Errorf("mounts %v, file system %q", r.w.mounts, r.w.fs)
	}
	for range 2 {
		r.must(r.publishVolume(testTarget))
	}
	if !r.w.mounts[testTarget].device {
		t.Errorf("mounts %v", r.w.mounts)
	}
	stats, err := r.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: testVolumeID, VolumePath: testTarget})
	if err != nil || len(stats.GetUsage()) != 1 || stats.GetUsage()[0].GetTotal() != r.w.size {
		t.Errorf("stats %v, %v", stats, err)
	}
	r.refused(r.unstageVolume(), volume.ErrInUse)
	r.must(r.unpublishVolume(testTarget))
	r.must(r.unstageVolume())
	r.gone()
}

// A pod may take a raw block volume read-only beside one that writes.
func TestBlockPublishedReadOnly(t *testing.T) {
	r := newNodeRig(t)
	r.cap = nodeBlockCapability()
	r.must(r.stageVolume())
	readOnly := &csi.NodePublishVolumeRequest{
		VolumeId: testVolumeID, StagingTargetPath: testStaging, TargetPath: testTarget, VolumeCapability: r.cap, Readonly: true,
	}
	for range 2 {
		_, err := r.NodePublishVolume(t.Context(), readOnly)
		r.must(err)
	}
	r.must(r.publishVolume("/kubelet/pods/2/dev"))
	r.refused(r.publishVolume(testTarget), volume.ErrIncompatible)
	if len(r.w.mounts) != 2 || !r.w.mounts[testTarget].device {
		t.Errorf("mounts %v", r.w.mounts)
	}
}

func TestExpand(t *testing.T) {
	r := newNodeRig(t)
	expand := func(path string, required, limit int64) (*csi.NodeExpandVolumeResponse, error) {
		return r.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{
			VolumeId: testVolumeID, VolumePath: path,
			CapacityRange: &csi.CapacityRange{RequiredBytes: required, LimitBytes: limit},
		})
	}
	_, err := expand(testStaging, 0, 0)
	r.refused(err, volume.ErrNotFound)
	r.must(r.stageVolume())
	r.must(r.publishVolume(testTarget))
	_, err = expand(testTarget, 2<<30, 0)
	r.refused(err, initiator.ErrTooSmall)
	r.w.size = 2 << 30
	for _, path := range []string{testStaging, testTarget} {
		resp, err := expand(path, 2<<30, 2<<30)
		if err != nil || resp.GetCapacityBytes() != 2<<30 {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
	_, err = expand(testTarget, 1<<30, 1<<30)
	r.refused(err, volume.ErrOutOfRange)
	_, err = expand("/elsewhere", 0, 0)
	r.refused(err, volume.ErrNotFound)
	_, err = expand(testTarget, -1, 0)
	r.refused(err, ErrInvalidField)
}

func TestStatsAreOfTheVolume(t *testing.T) {
	r := newNodeRig(t)
	stats := func(path string) error {
		_, err := r.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: testVolumeID, VolumePath: path})
		return err
	}
	r.refused(stats(testTarget), volume.ErrNotFound)
	r.must(r.stageVolume())
	r.refused(stats(testTarget), volume.ErrNotFound)
	r.must(r.publishVolume(testTarget))
	r.must(stats(testTarget))
	r.must(stats(testStaging))
	delete(r.w.mounts, testTarget)
	r.refused(stats(testTarget), volume.ErrNotFound)
}

func TestNodeInfo(t *testing.T) {
	r := newNodeRig(t)
	info, err := r.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || info.GetNodeId() != r.id.NodeID.String() || info.GetMaxVolumesPerNode() != defaultMaxVolumes {
		t.Errorf("got %v, %v", info, err)
	}
	caps, err := r.NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	if err != nil || len(caps.GetCapabilities()) != 4 {
		t.Errorf("got %v, %v", caps, err)
	}
}

// kubelet sends no Unpublish after an error that it takes for final.
func TestFinalPublishErrorLeavesNothing(t *testing.T) {
	for name, c := range map[string]*csi.VolumeCapability{
		"bind":        nodeMountCapability("ext4", csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER),
		"bind device": nodeBlockCapability(),
	} {
		r := newNodeRig(t)
		r.cap = c
		r.must(r.stageVolume())
		r.w.fail = func(step string) error {
			if step != name {
				return nil
			}
			r.w.mounts[testTarget] = worldMount{"8:64", false, false} // and something went wrong
			return errBroken
		}
		r.refused(r.publishVolume(testTarget), errBroken)
		r.w.fail = nil
		r.must(r.unstageVolume())
		r.gone()
	}
}

// A Publish that never happened keeps no other pod out.
func TestSingleWriterWhosePublishDied(t *testing.T) {
	r := newNodeRig(t)
	r.cap = nodeMountCapability("ext4", csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER)
	r.must(r.stageVolume())
	if !r.dying(1, func() error { return r.publishVolume(testTarget) }) {
		t.Fatal("nothing died")
	}
	r.must(r.publishVolume(testTarget + "2"))
	st, err := r.stages.load(testVolumeUUID)
	if err != nil || len(st.Targets) != 1 {
		t.Errorf("targets %v, %v", st.Targets, err)
	}
}

// Growing the file system of a disk that is not the mounted one would be done
// behind the kernel's back.
func TestExpandOfAnotherDisk(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	r.w.number = "8:16"
	_, err := r.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{VolumeId: testVolumeID, VolumePath: testStaging})
	r.refused(err, mount.ErrWrongMount)
	if slices.Contains(r.w.steps, "grow") {
		t.Errorf("steps %q", r.w.steps)
	}
}
