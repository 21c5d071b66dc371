package driver

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
)

// looks lets EndShutOut's looks of so much time pass.
func (r *nodeRig) looks(since map[string]time.Time, lasting time.Duration) map[string]time.Time {
	for range lasting / shutOutInterval {
		<-time.After(shutOutInterval)
		since = r.endShutOut(r.t.Context(), since)
	}
	return since
}

// The target keeps a node out that was fenced: its I/O ends soon. One that
// merely is away is waited for.
func TestEndShutOut(t *testing.T) {
	for name, c := range map[string]struct {
		lost, shutOut bool
		busy          bool // a call is at work on the volume
		want          bool
	}{
		"live":                  {},
		"lost":                  {lost: true},
		"shut out":              {lost: true, shutOut: true, want: true},
		"shut out, call inside": {lost: true, shutOut: true, busy: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newNodeRig(t)
				r.must(r.stageVolume())
				r.w.lost, r.w.shutOut = c.lost, c.shutOut
				if c.busy {
					_, release, err := r.locks.acquire(t.Context(), testVolumeUUID)
					r.must(err)
					defer release()
				}
				since := r.looks(nil, shutOutAfter)
				if r.w.failed {
					t.Error("given up too early")
				}
				r.looks(since, 2*shutOutInterval)
				if r.w.failed != c.want {
					t.Errorf("given up: %v", r.w.failed)
				}
			})
		})
	}
}

// A target that lets us in again in time has its session left alone.
func TestEndShutOutForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newNodeRig(t)
		r.must(r.stageVolume())
		r.w.lost = true
		var since map[string]time.Time
		for range 10 {
			r.w.shutOut = !r.w.shutOut
			since = r.looks(since, 2*shutOutInterval)
		}
		if r.w.failed {
			t.Error("given up")
		}
	})
}

// A look that failed says nothing of the time before it.
func TestEndShutOutBeginsAnewAfterAFailedLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newNodeRig(t)
		r.must(r.stageVolume())
		r.w.lost, r.w.shutOut = true, true
		since := r.looks(nil, shutOutAfter)
		r.w.look = func() error { return initiator.ErrHost }
		since = r.looks(since, 6*shutOutInterval)
		r.w.look = nil
		since = r.looks(since, shutOutAfter)
		if r.w.failed {
			t.Error("given up too early")
		}
		r.looks(since, shutOutInterval)
		if !r.w.failed {
			t.Error("not given up")
		}
	})
}

// EndShutOut ends with its context.
func TestEndShutOutEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newNodeRig(t)
		r.must(r.stageVolume())
		r.w.lost, r.w.shutOut = true, true
		go r.EndShutOut(t.Context()) // else the bubble would not end
		<-time.After(time.Minute)
		synctest.Wait()
		if !r.w.failed {
			t.Error("not given up")
		}
	})
}
