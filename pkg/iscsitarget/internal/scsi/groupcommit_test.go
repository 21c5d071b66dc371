package scsi

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func TestOneSyncForAllThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(64, 512)
		d.syncing = make(chan chan struct{})
		r := newRig(t, d, writeThrough)
		var wg sync.WaitGroup
		write := func() { r.expect("good", "2A 00 00000004 00 0001 00", pattern(512)...) }
		wg.Go(write)
		first := <-d.syncing
		for range 9 {
			wg.Go(write)
		}
		synctest.Wait() // the nine wait for a Sync that has not begun
		close(first)
		second := <-d.syncing
		synctest.Wait()
		close(second)
		wg.Wait()
		if d.syncs != 2 {
			t.Errorf("%d syncs for ten writes", d.syncs)
		}
		d.syncing = nil
	})
}

func TestAWaiterGetsItsOwnSyncsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g groupCommit
		outcomes, begun := make(chan error), make(chan struct{})
		sync := func() error { begun <- struct{}{}; return <-outcomes }
		results := make(chan error, 2)
		go func() { results <- g.wait(sync) }()
		<-begun
		go func() { results <- g.wait(sync) }()
		synctest.Wait()
		outcomes <- nil
		<-begun
		outcomes <- errDisk
		if a, b := <-results, <-results; a != nil || !errors.Is(b, errDisk) {
			t.Errorf("first %v, second %v", a, b)
		}
	})
}
