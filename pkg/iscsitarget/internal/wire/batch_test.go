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

// asBefore waits until nothing of another test's is left.
func asBefore(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); batch.on.Load(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("still on")
		}
	}
	scheduled(t, schedOther)
}

// A connection is deep when it has mostly been so, and not when it has mostly not.
func TestGauge(t *testing.T) {
	asBefore(t)
	c, _ := pair(t)
	gaugeTimes(c, deepTurns, true)
	if c.gauge.deep || batch.on.Load() {
		t.Error("deep so soon")
	}
	gaugeTimes(c, 1, true)
	if !c.gauge.deep {
		t.Error("not deep")
	}
	for range 5 * deepTurns { // now and then there is little to do
		gaugeTimes(c, 2, false)
		gaugeTimes(c, 3, true)
	}
	if !c.gauge.deep {
		t.Error("no longer deep")
	}
	gaugeTimes(c, 2*deepTurns, false)
	if c.gauge.deep {
		t.Error("still deep")
	}
	asBefore(t) // by itself
}

// While connections are deep the process preempts nobody, its new threads neither; when
// none was for a while it is scheduled as before.
func TestBatchWhileDeep(t *testing.T) {
	asBefore(t)
	p := policy{period: time.Hour} // the test looks
	for range 2 {
		p.deep()
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
		p.look() // it has been deep since
		scheduled(t, unix.SCHED_BATCH)
		p.deep()
		p.look()
		scheduled(t, unix.SCHED_BATCH)
		p.look()
		scheduled(t, schedOther)
	}
}

// The policy that somebody has given the process stays.
func TestGivenPolicyStays(t *testing.T) {
	asBefore(t)
	if !reschedule(schedOther, unix.SCHED_BATCH) {
		t.Fatal("not permitted")
	}
	defer reschedule(unix.SCHED_BATCH, schedOther)
	p := policy{period: time.Hour}
	p.deep()
	p.look()
	p.look()
	if p.on.Load() {
		t.Error("still on")
	}
	scheduled(t, unix.SCHED_BATCH)
}
