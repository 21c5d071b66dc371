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

// While one connection is deep the process preempts nobody, its new threads neither.
func TestBatchWhileDeep(t *testing.T) {
	a, _ := pair(t)
	b, _ := pair(t)
	scheduled(t, schedOther)
	gaugeTimes(a, deepTurns, true)
	scheduled(t, schedOther) // it may pass
	gaugeTimes(a, 1, true)
	scheduled(t, unix.SCHED_BATCH)
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
	for range 5 * deepTurns { // now and then there is little to do
		gaugeTimes(a, 2, false)
		gaugeTimes(a, 3, true)
	}
	scheduled(t, unix.SCHED_BATCH)
	gaugeTimes(b, deepTurns+1, true)
	gaugeTimes(a, deepTurns+1, false)
	scheduled(t, unix.SCHED_BATCH) // for b
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	scheduled(t, schedOther)
	gaugeTimes(b, deepTurns+1, true) // by who has not heard of it yet
	scheduled(t, schedOther)
}

// A connection that has become idle is not deep.
func TestIdleIsNotDeep(t *testing.T) {
	unseated(t, func(t *testing.T) {
		c, peer := pair(t)
		gaugeTimes(c, deepTurns+1, true)
		scheduled(t, unix.SCHED_BATCH)
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { _, _ = c.Read(make([]byte, 1)) })
		scheduled(t, schedOther)
		_ = peer.Close()
	})
}

// The policy that somebody has given the process stays.
func TestGivenPolicyStays(t *testing.T) {
	if !reschedule(schedOther, unix.SCHED_BATCH) {
		t.Fatal("not permitted")
	}
	defer reschedule(unix.SCHED_BATCH, schedOther)
	c, _ := pair(t)
	gaugeTimes(c, deepTurns+1, true)
	gaugeTimes(c, deepTurns+1, false)
	scheduled(t, unix.SCHED_BATCH)
}
