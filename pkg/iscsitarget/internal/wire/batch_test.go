package wire

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scheduled fails unless all threads of the process have a policy, after a while at most.
func scheduled(t *testing.T, want int) {
	t.Helper()
	look := func() (err error) {
		for _, tid := range threads() {
			if got := scheduler(tid); got >= 0 && got != want {
				err = fmt.Errorf("thread %d has policy %d, want %d", tid, got, want)
			}
		}
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for look() != nil && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if err := look(); err != nil {
		t.Error(err)
	}
	if len(threads()) < 2 {
		t.Error("the process has no threads")
	}
}

// gaugeTimes tells c n times that it is deep, or not.
func gaugeTimes(c *Conn, n int, deep bool) {
	for range n {
		c.Gauge(deep)
	}
}

// While a connection is deep the process preempts nobody, its new threads neither; when
// none is, or nothing comes any more, it is scheduled as before.
func TestBatchWhileDeep(t *testing.T) {
	c, _ := pair(t)
	scheduled(t, schedOther)
	gaugeTimes(c, deepTurns, true)
	scheduled(t, schedOther) // it may pass
	gaugeTimes(c, 1, true)
	var wg sync.WaitGroup
	for range 8 { // which take threads
		wg.Go(func() {
			runtime.LockOSThread()
			if got := scheduler(unix.Gettid()); got != unix.SCHED_BATCH {
				t.Errorf("a new thread has policy %d", got)
			}
		})
	}
	wg.Wait()
	for end := time.Now().Add(4 * batchPeriod); time.Now().Before(end); {
		gaugeTimes(c, 2, false) // now and then there is little to do
		gaugeTimes(c, 3, true)
		scheduled(t, unix.SCHED_BATCH)
	}
	gaugeTimes(c, 2*deepTurns, false)
	scheduled(t, schedOther)
	gaugeTimes(c, 2*deepTurns, true)
	scheduled(t, unix.SCHED_BATCH)
	scheduled(t, schedOther) // nothing comes
}

// The policy that somebody has given the process stays.
func TestGivenPolicyStays(t *testing.T) {
	if !reschedule(schedOther, unix.SCHED_BATCH) {
		t.Fatal("not permitted")
	}
	defer reschedule(unix.SCHED_BATCH, schedOther)
	c, _ := pair(t)
	gaugeTimes(c, 2*deepTurns, true)
	for batch.on.Load() {
		runtime.Gosched()
	}
	scheduled(t, unix.SCHED_BATCH)
}
