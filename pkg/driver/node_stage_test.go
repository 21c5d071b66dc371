package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/mount"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// kubelet sends no Unstage after an error that it takes for final.
func TestFinalStageErrorLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*nodeRig)
		want  error
	}{
		"login refused":     {func(r *nodeRig) { r.w.refuse = initiator.ErrRefused }, initiator.ErrRefused},
		"something unknown": {func(r *nodeRig) { r.w.junk = true }, mount.ErrNotEmpty},
		"another type":      {func(r *nodeRig) { r.w.fs = "xfs" }, mount.ErrOtherFilesystem},
		"mkfs fails":        {func(r *nodeRig) { r.w.fail = failing(map[string]error{"mkfs ends": errBroken}) }, errBroken},
		"mount fails":       {func(r *nodeRig) { r.w.fs, r.w.fail = "ext4", failing(map[string]error{"mount": errBroken}) }, errBroken},
		"grow fails": {func(r *nodeRig) {
			r.w.fs, r.w.fsSize, r.w.fail = "ext4", 1<<20, failing(map[string]error{"grow": errBroken})
		}, errBroken},
	} {
		t.Run(name, func(t *testing.T) {
			r := newNodeRig(t)
			c.spoil(r)
			err := r.stageVolume()
			r.refused(err, c.want)
			if !isFinal(err) {
				t.Errorf("code %v", errorCode(err))
			}
			r.gone()
		})
	}
}

var errBroken = errors.New("broken")

// What mkfs had written when it failed is no longer in the way of the next one,
// on whatever node and under whatever generation.
func TestFailedFormatIsWiped(t *testing.T) {
	for name, again := range map[string]func(*nodeRig) error{
		"after the error": func(*nodeRig) error { return nil },
		"after Unstage":   (*nodeRig).unstageVolume,
	} {
		r := newNodeRig(t)
		r.w.fail = failing(map[string]error{"mkfs ends": errBroken})
		r.refused(r.stageVolume(), errBroken)
		r.w.fail = nil
		r.must(again(r))
		if r.w.junk {
			t.Errorf("%s: half a file system is left", name)
		}
		r.pc.Generation++
		r.must(r.stageVolume())
		r.live()
	}
}

// The plugin was killed in mkfs, and kubelet wants the volume no more.
func TestUnstageWipesHalfAFormat(t *testing.T) {
	r := newNodeRig(t)
	for r.w.dieAt = 1; !r.w.junk; r.w.dieAt++ {
		r.w.point = 0
		_ = r.stageVolume()
	}
	r.w.revive()
	r.restart()
	r.must(r.unstageVolume())
	r.gone()
	if r.w.junk || !slices.Contains(r.w.steps, "wipe") {
		t.Errorf("half a file system is left after %q", r.w.steps)
	}
}

// Where the leftovers cannot be removed either, kubelet must come back.
func TestStageThatCannotCleanUpIsNotFinal(t *testing.T) {
	r := newNodeRig(t)
	mounted := false
	r.w.fs, r.w.fail = "ext4", func(step string) error {
		mounted = mounted || step == "mount"
		if mounted && step == "logout" {
			return initiator.ErrLeftOver
		}
		return map[string]error{"mount": errBroken}[step]
	}
	err := r.stageVolume()
	r.refused(err, errBroken)
	r.refused(err, initiator.ErrLeftOver)
	if errorCode(err) != codes.Unavailable {
		t.Errorf("code %v", errorCode(err))
	}
	r.w.fail = nil
	r.must(r.unstageVolume())
	r.gone()
}

// An old staging that cannot be removed is still somebody's to remove.
func TestStageOverWhatCannotBeRemovedIsNotFinal(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	r.must(r.publishVolume(testTarget))
	r.pc.Generation++
	if err := r.stageVolume(); errorCode(err) != codes.Unavailable {
		t.Errorf("in use: %v", err)
	}
	r.must(r.unpublishVolume(testTarget))
	r.w.fail = failing(map[string]error{"logout": initiator.ErrLeftOver})
	if err := r.stageVolume(); errorCode(err) != codes.Unavailable {
		t.Errorf("left over: %v", err)
	}
}

// A target that is away for a moment takes nothing with it: the same staging
// goes on when it is back.
func TestStageWhileTheSessionRecovers(t *testing.T) {
	r := newNodeRig(t)
	r.must(r.stageVolume())
	r.w.recovering = true
	for range 2 {
		err := r.stageVolume()
		r.refused(err, initiator.ErrRecovering)
		r.refused(r.publishVolume(testTarget), initiator.ErrRecovering)
		if errorCode(err) != codes.Unavailable || r.w.username == "" || len(r.w.mounts) != 1 {
			t.Fatalf("%v, mounts %v", err, r.w.mounts)
		}
		r.restart()
	}
	r.w.recovering = false
	r.must(r.stageVolume())
	if len(r.w.usernames) != 1 {
		t.Errorf("logins %q", r.w.usernames)
	}
	// Under another generation the old session never comes back.
	r.w.recovering = true
	r.pc.Generation++
	r.must(r.stageVolume())
	r.live()
}

// A file that is not a stage of that volume tells nothing.
func TestStageFilesOfOtherContent(t *testing.T) {
	for _, content := range []string{"", "null", "{}", `{"volumeID": "p.x"}`, `[]`} {
		r := newNodeRig(t)
		r.must(r.stageVolume())
		r.must(os.WriteFile(filepath.Join(r.dir, "volumes", testVolumeUUID+".json"), []byte(content), 0o600))
		if _, err := r.stages.load(testVolumeUUID); !errors.Is(err, errBadStage) {
			t.Errorf("%q: %v", content, err)
		}
		r.must(r.unstageVolume())
		r.gone()
	}
}

// kubelet waits two minutes, and a large file system may take longer: killed
// and begun anew at every call, mkfs and fsck would never end.
func TestSlowWorkOutlivesItsCaller(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*world)
		step  string
	}{
		"mkfs": {func(*world) {}, "mkfs begins"},
		"fsck": {func(w *world) { w.fs, w.data, w.dirty, w.fsSize = "ext4", "precious", true, w.size }, "fsck"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newNodeRig(t)
				c.spoil(r.w)
				r.w.slow = 5 * time.Minute
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				_, err := r.NodeStageVolume(ctx, r.stageRequest())
				r.refused(err, context.DeadlineExceeded)
				r.refused(r.stageVolume(), volume.ErrPending)
				r.refused(r.unstageVolume(), volume.ErrPending)
				<-time.After(4 * time.Minute)
				synctest.Wait()
				r.must(r.stageVolume())
				r.live()
				did := 0
				for _, step := range r.w.steps {
					if step == c.step {
						did++
					}
				}
				if did != 1 || slices.Contains(r.w.steps, "wipe") {
					t.Errorf("steps %q", r.w.steps)
				}
			})
		})
	}
}
