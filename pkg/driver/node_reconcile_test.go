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

	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
)

// reboot takes away what the kernel knew.
func (r *nodeRig) reboot() {
	r.w.username, r.w.lost, r.w.recovering = "", false, false
	clear(r.w.mounts)
	r.w.revive()
	r.restart()
}

func (r *nodeRig) stageFile() string { return filepath.Join(r.dir, "volumes", testVolumeUUID+".json") }

func (r *nodeRig) kubeletHadItsTime() { r.started = time.Now().Add(-reconcileInterval) }

// The volume may be elsewhere by now: kubelet may never come back for it.
func TestReconcileAfterAReboot(t *testing.T) {
	for name, c := range map[string]func(*nodeRig){
		"mounted":       func(*nodeRig) {},
		"block":         func(r *nodeRig) { r.cap = nodeBlockCapability() },
		"its file lost": func(*nodeRig) {},
	} {
		t.Run(name, func(t *testing.T) {
			r := newNodeRig(t)
			c(r)
			r.must(r.stageVolume())
			r.must(r.publishVolume(testTarget))
			r.w.data = "precious"
			r.reboot()
			if name == "its file lost" {
				r.must(os.Remove(r.stageFile()))
			}
			r.must(r.reconcile(t.Context()))
			r.gone()
			r.must(r.stageVolume())
			if r.w.data != "precious" {
				t.Error("data lost")
			}
		})
	}
}

// The plugin dies in any step of Stage, and kubelet does not come back.
func TestReconcileAfterAStageThatDied(t *testing.T) {
	everyPoint(t, 12, func(t *testing.T, r *nodeRig, dieAt int) bool {
		died := r.dying(dieAt, r.stageVolume)
		st, err := r.stages.load(testVolumeUUID)
		r.must(err)
		r.kubeletHadItsTime()
		r.must(r.reconcile(t.Context()))
		if st != nil && st.Staged {
			r.live()
			return died
		}
		r.gone()
		if r.w.junk {
			t.Error("half a file system is left")
		}
		return died
	})
}

// The session went in the middle of mkfs: the next Stage must know.
func TestReconcileKeepsWhatAFormatLeft(t *testing.T) {
	r := newNodeRig(t)
	for r.w.dieAt = 1; !r.w.junk; r.w.dieAt++ {
		r.w.point = 0
		_ = r.stageVolume()
	}
	r.reboot()
	r.kubeletHadItsTime()
	r.must(r.reconcile(t.Context()))
	if r.w.record {
		t.Error("the record stays")
	}
	r.must(r.stageVolume())
	r.live()
}

// What somebody uses, or will come back for, stays as it is.
func TestReconcileLeavesAlone(t *testing.T) {
	for name, spoil := range map[string]func(*nodeRig){
		"staged":             func(*nodeRig) {},
		"published":          func(r *nodeRig) { r.must(r.publishVolume(testTarget)) },
		"lost":               func(r *nodeRig) { r.w.lost = true },
		"recovering":         func(r *nodeRig) { r.w.recovering = true },
		"file lost, mounted": func(r *nodeRig) { r.must(os.Remove(r.stageFile())) },
		"file lost, held elsewhere": func(r *nodeRig) {
			r.must(os.Remove(r.stageFile()))
			delete(r.w.mounts, testStaging)
			r.w.heldBy, r.w.lost = errors.New("somebody"), true
		},
		"file damaged": func(r *nodeRig) {
			r.must(os.WriteFile(r.stageFile(), []byte("{"), 0o600))
			delete(r.w.mounts, testStaging)
		},
		"session gone, still mounted": func(r *nodeRig) { r.w.username = "" },
		"session gone, pod has it": func(r *nodeRig) {
			r.must(r.publishVolume(testTarget))
			r.w.username = ""
			delete(r.w.mounts, testStaging)
		},
		"kubelet comes back soon": func(r *nodeRig) {
			st, err := r.stages.load(testVolumeUUID)
			r.must(err)
			st.Staged = false
			r.must(r.stages.save(testVolumeUUID, st))
		},
		"a call is at work": func(r *nodeRig) {
			r.reboot()
			_, release, err := r.locks.acquire(r.t.Context(), testVolumeUUID)
			r.must(err)
			r.t.Cleanup(release)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newNodeRig(t)
			r.must(r.stageVolume())
			spoil(r)
			mounts, username := len(r.w.mounts), r.w.username
			r.w.steps = nil
			r.must(r.reconcile(t.Context()))
			if r.w.steps != nil || len(r.w.mounts) != mounts || r.w.username != username || !r.w.record {
				t.Errorf("did %q", r.w.steps)
			}
		})
	}
}

// At boot the plugin may run before iscsid does; and what turns up later goes
// too.
func TestReconcileLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newNodeRig(t)
		r.w.record = true
		ctx, cancel := context.WithCancel(t.Context())
		start, looks := time.Now(), []time.Duration(nil)
		r.w.look = func() error {
			looks = append(looks, time.Since(start))
			switch len(looks) {
			case 1, 2:
				return initiator.ErrHost
			case 4:
				r.gone()
				r.w.username = "u9+9" // a login that iscsid finished late
			case 5:
				r.gone()
				cancel()
			}
			return nil
		}
		r.Reconcile(ctx)
		const retry, again = reconcileRetry, reconcileInterval
		want := []time.Duration{0, retry, 2 * retry, 2*retry + again, 2*retry + 2*again}
		if !slices.Equal(looks, want) {
			t.Errorf("looked at %v, want %v", looks, want)
		}
	})
}
