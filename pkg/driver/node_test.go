package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/mount"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

func TestStageTwiceIsOneStaging(t *testing.T) {
	r := newNodeRig(t)
	for range 3 {
		r.must(r.stageVolume())
		r.restart()
	}
	if len(r.w.usernames) != 1 {
		t.Errorf("logins %q", r.w.usernames)
	}
	r.live()
}

func TestStageKeepsNoSecret(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	path := filepath.Join(r.dir, "volumes", testVolumeUUID+".json")
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "PLANTED") {
		t.Errorf("the stage file: %s, %v", b, err)
	}
}

func TestStageGoneBadIsDoneAnew(t *testing.T) {
	for name, spoil := range map[string]func(*world){
		"session lost":      func(w *world) { w.lost = true },
		"session gone":      func(w *world) { w.username = "" },
		"other session":     func(w *world) { w.username = "u9+9" },
		"no reads":          func(w *world) { w.bad = true },
		"another sdX":       func(w *world) { w.number = "8:16" },
		"not mounted":       func(w *world) { delete(w.mounts, testStaging) },
		"became read-only":  func(w *world) { w.mounts[testStaging] = worldMount{w.number, true, false} },
		"other disk's file": func(w *world) { w.mounts[testStaging] = worldMount{"8:32", false, false} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newNodeRig(t)
			r.must(r.stageVolume())
			r.w.data = "precious"
			spoil(r.w)
			r.must(r.stageVolume())
			r.live()
			if len(r.w.usernames) != 2 || r.w.mounts[testStaging].number != r.w.number || r.w.mounts[testStaging].readOnly {
				t.Errorf("logins %q, mounts %v", r.w.usernames, r.w.mounts)
			}
		})
	}
}

// Pods that still have the old mount would go on with it.
func TestStageGoneBadUnderPodsIsRefused(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	r.must(r.publishVolume(testTarget))
	r.w.lost = true
	r.refused(r.stageVolume(), volume.ErrInUse)
	r.refused(r.unstageVolume(), volume.ErrInUse)
	if r.w.username == "" || len(r.w.mounts) != 2 {
		t.Errorf("something was torn down: %v", r.w.mounts)
	}
}

func TestNewGenerationIsStagedAnew(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	r.pc.Generation++
	r.pc.Credentials.User = "user-8"
	r.must(r.stageVolume())
	if len(r.w.usernames) != 2 || !strings.HasPrefix(r.w.username, "user-8+") {
		t.Errorf("logins %q", r.w.usernames)
	}
}

func TestStageWithAnotherCapability(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	r.cap = nodeBlockCapability()
	r.refused(r.stageVolume(), volume.ErrIncompatible)
	r.cap = nodeMountCapability("xfs", csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
	r.refused(r.stageVolume(), volume.ErrIncompatible)
}

// The volume was formatted by this node half, then moved, formatted and filled
// elsewhere, and came back: under another generation.
func TestInterruptedFormatOfAnotherGeneration(t *testing.T) {
	r := newNodeRig(t)
	for r.w.dieAt = 1; ; r.w.dieAt++ {
		r.w.point = 0
		_ = r.stageVolume()
		if r.w.junk {
			break
		}
	}
	r.w.revive()
	r.restart()
	r.w.junk, r.w.fs, r.w.data = false, "ext4", "precious"
	r.pc.Generation++
	r.must(r.stageVolume())
	if r.w.data != "precious" || slices.Contains(r.w.steps, "wipe") || slices.Contains(r.w.steps, "mkfs begins") {
		t.Errorf("steps %q", r.w.steps)
	}
}

func TestStageNeverFormats(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*nodeRig)
		want  error
	}{
		"something unknown": {func(r *nodeRig) { r.w.junk = true }, mount.ErrNotEmpty},
		"another type":      {func(r *nodeRig) { r.w.fs = "xfs" }, mount.ErrOtherFilesystem},
		"empty, read-only":  {func(r *nodeRig) { r.pc.ReadOnly = true }, mount.ErrOtherFilesystem},
	} {
		r := newNodeRig(t)
		c.spoil(r)
		r.refused(r.stageVolume(), c.want)
		if slices.Contains(r.w.steps, "mkfs begins") || slices.Contains(r.w.steps, "wipe") {
			t.Errorf("%s: steps %q", name, r.w.steps)
		}
		r.must(r.unstageVolume())
		r.gone()
	}
}

func TestStageReadOnly(t *testing.T) {
	r := newNodeRig(t)
	r.w.fs, r.pc.ReadOnly = "ext4", true
	r.must(r.stageVolume())
	if !r.w.mounts[testStaging].readOnly || slices.Contains(r.w.steps, "fsck") || slices.Contains(r.w.steps, "grow") {
		t.Errorf("mounts %v after %q", r.w.mounts, r.w.steps)
	}
	r.must(r.publishVolume(testTarget))
	if !r.w.mounts[testTarget].readOnly {
		t.Errorf("mounts %v", r.w.mounts)
	}
}

func TestStageRepairsAndGrows(t *testing.T) {
	for name, c := range map[string]struct {
		dirty bool
		size  int64
		want  []string
	}{
		"as it was": {false, 1 << 30, nil}, "dirty": {true, 1 << 30, []string{"fsck"}},
		"grown": {false, 2 << 30, []string{"grow"}}, "both": {true, 2 << 30, []string{"fsck", "grow"}},
		"part of a block": {false, 1<<30 + 512, nil},
	} {
		unsure := c.dirty // either way, blkid decides or need not be asked
		r := newNodeRig(t)
		r.w.fs, r.w.fsSize, r.w.dirty, r.w.size, r.w.unsure = "ext4", 1<<30, c.dirty, c.size, unsure
		r.must(r.stageVolume())
		if asked := r.w.probes > 0; asked != unsure {
			t.Errorf("%s: a device with a sound superblock %v was probed: %v", name, !unsure, asked)
		}
		var got []string
		for _, s := range r.w.steps {
			if s == "fsck" || s == "grow" {
				got = append(got, s)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, r.w.steps)
		}
	}
}

func TestStageRefusesRequests(t *testing.T) {
	r := newNodeRig(t)
	for name, c := range map[string]struct {
		change func(*csi.NodeStageVolumeRequest)
		want   codes.Code
	}{
		"foreign id":     {func(q *csi.NodeStageVolumeRequest) { q.VolumeId = "some-volume" }, codes.NotFound},
		"path in the id": {func(q *csi.NodeStageVolumeRequest) { q.VolumeId = "p.../../" + testVolumeUUID }, codes.NotFound},
		"another volume": {func(q *csi.NodeStageVolumeRequest) { q.VolumeId = "p.00000000-0000-4000-8000-000000000000" }, codes.InvalidArgument},
		"no context":     {func(q *csi.NodeStageVolumeRequest) { q.PublishContext = nil }, codes.InvalidArgument},
		"no access type": {func(q *csi.NodeStageVolumeRequest) { q.VolumeCapability.AccessType = nil }, codes.InvalidArgument},
		"file system": {func(q *csi.NodeStageVolumeRequest) {
			q.VolumeCapability = nodeMountCapability("ntfs", csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
		}, codes.InvalidArgument},
		"access mode": {func(q *csi.NodeStageVolumeRequest) {
			q.VolumeCapability = nodeMountCapability("ext4", csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)
		}, codes.InvalidArgument},
		"mount flag": {func(q *csi.NodeStageVolumeRequest) {
			q.VolumeCapability = nodeMountCapability("ext4", csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
			q.VolumeCapability.GetMount().MountFlags = []string{"remount"}
		}, codes.InvalidArgument},
	} {
		q := r.stageRequest()
		q.VolumeCapability = nodeMountCapability("ext4", csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
		c.change(q)
		if _, err := r.NodeStageVolume(t.Context(), q); errorCode(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r.w.steps != nil {
		t.Errorf("a refused request did %q", r.w.steps)
	}
}

func TestStageFailureIsTornDownLater(t *testing.T) {
	r := newNodeRig(t)
	r.w.refuse = initiator.ErrUnreachable
	r.refused(r.stageVolume(), initiator.ErrUnreachable)
	r.w.refuse = nil
	r.must(r.unstageVolume())
	r.gone()
}

func TestUnstageOfUnknownVolumes(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.unstageVolume())
	if !slices.Contains(r.w.steps, "logout") {
		t.Error("no session was looked for")
	}
	r.w.steps = nil
	_, err := r.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: "not-ours", StagingTargetPath: testStaging})
	if err != nil || r.w.steps != nil {
		t.Errorf("%v after %q", err, r.w.steps)
	}
}

func TestUnstageWithoutItsFile(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"lost":    os.Remove,
		"garbage": func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newNodeRig(t)
			r.must(r.stageVolume())
			r.must(r.publishVolume(testTarget))
			r.must(spoil(filepath.Join(r.dir, "volumes", testVolumeUUID+".json")))
			r.refused(r.unstageVolume(), volume.ErrInUse)
			r.must(r.unpublishVolume(testTarget))
			r.must(r.unstageVolume())
			r.gone()
		})
	}
}

// The unmount waits for a target that does not come back.
func TestUnstageOfALostTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newNodeRig(t)
		r.must(r.stageVolume())
		r.w.lost, r.w.stuck = true, make(chan struct{})
		start := time.Now()
		r.must(r.unstageVolume())
		if took := time.Since(start); took < r.opts.DetachGrace {
			t.Errorf("gave up after %v", took)
		}
		r.gone()
	})
}

// While the kernel still takes the session for live, its I/O may yet end well.
func TestUnstageWaitsForALiveSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newNodeRig(t)
		r.must(r.stageVolume())
		r.w.stuck = make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ctx, _ = child.WithTracker(ctx)
		err := r.giveUpWhileStuck(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if r.w.username == "" {
			t.Error("a live session was ended")
		}
	})
}

// giveUpWhileStuck runs giveUp under a call that is stuck all the while.
func (r *nodeRig) giveUpWhileStuck(ctx context.Context) error {
	block := make(chan struct{})
	defer close(block)
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_ = child.Do(short, "umount", func() error { <-block; return nil })
	return r.giveUp(ctx, volume.TargetName(testVolumeUUID))
}

func TestOneCallAVolume(t *testing.T) {
	r := newNodeRig(t)
	_, release, err := r.locks.acquire(t.Context(), testVolumeUUID)
	r.must(err)
	for name, err := range map[string]error{
		"stage": r.stageVolume(), "unstage": r.unstageVolume(),
		"publish": r.publishVolume(testTarget), "unpublish": r.unpublishVolume(testTarget),
	} {
		if errorCode(err) != codes.Aborted {
			t.Errorf("%s: %v", name, err)
		}
	}
	release()
	r.must(r.stageVolume())
}

// What a call left stuck in the kernel keeps its volume's lock.
func TestLockOutlivesAStuckCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newNodeRig(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ctx, release, err := r.locks.acquire(ctx, testVolumeUUID)
		r.must(err)
		block := make(chan struct{})
		if err := child.Do(ctx, "umount", func() error { <-block; return nil }); !errors.Is(err, child.ErrStuck) {
			t.Fatal(err)
		}
		release()
		r.refused(r.unstageVolume(), volume.ErrPending)
		<-time.After(time.Second)
		if r.locks.stuckFor(testVolumeUUID) != time.Second {
			t.Errorf("stuck for %v", r.locks.stuckFor(testVolumeUUID))
		}
		// An Unstage that finds it so ends a session that is lost.
		r.w.lost, r.w.stuck = true, block
		r.refused(r.unstageVolume(), volume.ErrPending)
		synctest.Wait()
		r.w.lost = false
		r.must(r.unstageVolume())
	})
}
