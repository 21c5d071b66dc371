package driver

import (
	"fmt"
	"testing"
)

// everyPoint runs a scenario once for each point at which the plugin can die,
// until one run passes all of them.
func everyPoint(t *testing.T, atLeast int, scenario func(t *testing.T, r *nodeRig, dieAt int) (died bool)) {
	t.Helper()
	for point := 1; ; point++ {
		died := false
		t.Run(fmt.Sprint(point), func(t *testing.T) { died = scenario(t, newNodeRig(t), point) })
		if died {
			continue
		}
		if point <= atLeast {
			t.Errorf("only %d points to die at", point-1)
		}
		return
	}
}

// dying runs f with death at a point, counted from now, and gives the plugin's
// successor the world as it is then.
func (r *nodeRig) dying(dieAt int, f func() error) bool {
	r.t.Helper()
	r.w.point, r.w.dieAt = 0, dieAt
	err := f()
	died := r.w.point >= dieAt
	if died == (err == nil) {
		r.t.Errorf("died: %v, and yet: %v", died, err)
	}
	r.w.revive()
	r.restart()
	return died
}

func TestStageDiesAndIsDoneAgain(t *testing.T) {
	everyPoint(t, 12, func(t *testing.T, r *nodeRig, dieAt int) bool {
		died := r.dying(dieAt, r.stageVolume)
		r.must(r.stageVolume())
		r.live()
		r.must(r.unstageVolume())
		r.gone()
		return died
	})
}

func TestStageDiesAndIsUndone(t *testing.T) {
	everyPoint(t, 12, func(t *testing.T, r *nodeRig, dieAt int) bool {
		died := r.dying(dieAt, r.stageVolume)
		r.must(r.unstageVolume())
		r.gone()
		return died
	})
}

// A volume with data, staged anew after a death at any point, keeps it.
func TestStageOfDataDies(t *testing.T) {
	everyPoint(t, 10, func(t *testing.T, r *nodeRig, dieAt int) bool {
		r.w.fs, r.w.data = "ext4", "precious"
		died := r.dying(dieAt, r.stageVolume)
		r.must(r.stageVolume())
		r.live()
		if r.w.data != "precious" {
			t.Error("data lost")
		}
		return died
	})
}

func TestUnstageDiesAndIsDoneAgain(t *testing.T) {
	everyPoint(t, 6, func(t *testing.T, r *nodeRig, dieAt int) bool {
		r.must(r.stageVolume())
		died := r.dying(dieAt, r.unstageVolume)
		r.must(r.unstageVolume())
		r.gone()
		return died
	})
}

func TestUnstageDiesAndIsStagedAgain(t *testing.T) {
	everyPoint(t, 6, func(t *testing.T, r *nodeRig, dieAt int) bool {
		r.must(r.stageVolume())
		r.w.data = "precious"
		died := r.dying(dieAt, r.unstageVolume)
		r.must(r.stageVolume())
		r.live()
		return died
	})
}

func TestPublishDies(t *testing.T) {
	everyPoint(t, 2, func(t *testing.T, r *nodeRig, dieAt int) bool {
		r.must(r.stageVolume())
		died := r.dying(dieAt, func() error { return r.publishVolume(testTarget) })
		r.must(r.publishVolume(testTarget))
		if r.w.mounts[testTarget].number != r.w.number {
			t.Errorf("mounts %v", r.w.mounts)
		}
		died = r.dying(dieAt, func() error { return r.unpublishVolume(testTarget) }) || died
		r.must(r.unpublishVolume(testTarget))
		r.must(r.unstageVolume())
		r.gone()
		return died
	})
}

func TestRestageOfABadStageDies(t *testing.T) {
	everyPoint(t, 14, func(t *testing.T, r *nodeRig, dieAt int) bool {
		r.must(r.stageVolume())
		r.w.data, r.w.lost = "precious", true
		died := r.dying(dieAt, r.stageVolume)
		r.must(r.stageVolume())
		r.live()
		return died
	})
}
