package session

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// What is here ends reads of what was not in memory, and is on its way there. The medium
// works for all of them at once; to find out which are done costs less than to have a
// thread wait for each. A reader that has such reads looks after them (attend.go). What it
// leaves a goroutine waits for, the first of it in a read: with it comes most of what is
// behind.

// fetchers have one fetcher a logical unit: a medium that stalls keeps the reads of no
// other one.
type fetchers struct {
	mu      sync.Mutex
	of      map[[8]byte]*fetcher // by LUN, of those that have something to do
	pending atomic.Int32         // reads in their queues
	// attended: a reader is to call attend or leave. Nobody else need wait for anything.
	attended bool
	wg       sync.WaitGroup
}

// fetcher is guarded by fetchers.mu.
type fetcher struct {
	queue   []*task // but for those that somebody has in hand
	inHand  int
	running bool // run is
}

// maxFetch is the longest read, in bytes, that is waited for together with others: of a
// longer one the medium is asked for a part at a time, by a worker of its own.
const maxFetch = 64 << 10

// maxMisses is how many reads in a row are looked at that are not there yet. They come
// about in the order in which they were asked for.
const maxMisses = 8

// submit has a read, which a call is counted in for, ended when its data is there. It
// comes from the reader of the task's connection.
func (f *fetchers) submit(t *task) {
	t.shared.Store(true)
	t.conn.Load().attends = true
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attended = true
	of := f.of[t.lun]
	if of == nil {
		of = &fetcher{}
		f.of[t.lun] = of
	}
	at := len(of.queue)
	if t.head {
		at = 0
	}
	f.put(of, at, t)
}

// put puts a task into a queue. f.mu is held.
func (f *fetchers) put(of *fetcher, at int, t *task) {
	of.queue = slices.Insert(of.queue, at, t)
	f.pending.Add(1)
}

// remove takes a task out of a queue. f.mu is held.
func (f *fetchers) remove(of *fetcher, i int) *task {
	t := of.queue[i]
	of.queue = slices.Delete(of.queue, i, i+1)
	f.pending.Add(-1)
	return t
}

// work calls do, which does what is to be done for a task, and puts that back to its
// place unless it is over. It returns the place of the next. f.mu is held, but not during
// the call.
func (f *fetchers) work(of *fetcher, at int, do func(*task) (over bool)) (next int, over bool) {
	t := f.remove(of, at)
	of.inHand++
	f.mu.Unlock()
	over = do(t)
	f.mu.Lock()
	of.inHand--
	switch {
	case over:
	case t.aborted.Load(): // drop did not see it
		f.mu.Unlock()
		t.finish(scsi.StatusGood) // it ends
		f.mu.Lock()
	default:
		at = min(at, len(of.queue))
		f.put(of, at, t)
		at++
	}
	return at, over
}

// sweep looks once at what there is to wait for.
func (f *fetchers) sweep() (progress bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for lun, of := range f.of {
		progress = f.sweepOne(of) || progress
		f.tidy(lun, of)
	}
	return progress
}

// tidy forgets a fetcher that has nothing to do. f.mu is held.
func (f *fetchers) tidy(lun [8]byte, of *fetcher) {
	if len(of.queue)+of.inHand == 0 && !of.running && f.of[lun] == of {
		delete(f.of, lun)
	}
}

// leave has goroutines wait for what is pending.
func (f *fetchers) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attended = false
	for lun, of := range f.of {
		if !of.running && len(of.queue) > 0 {
			of.running = true
			f.wg.Go(func() { f.run(lun, of) })
		}
	}
}

// run waits until there is nothing to wait for, or somebody else attends to it.
func (f *fetchers) run(lun [8]byte, of *fetcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(of.queue) > 0 && !f.attended {
		f.work(of, 0, (*task).awaitPart)
		for !f.attended && f.sweepOne(of) {
		}
	}
	of.running = false
	f.tidy(lun, of)
}

// sweepOne ends the reads whose data is there; false means that there was none. f.mu is
// held, but not during the reads.
func (f *fetchers) sweepOne(of *fetcher) (progress bool) {
	var box *outbox // that gathers
	look := func(t *task) (over bool) {
		if b := t.outbox(); b != box {
			box.scatter()
			box = b
			box.gather()
		}
		return t.fetched()
	}
	for at, misses := 0, 0; at < len(of.queue) && misses < maxMisses; {
		next, over := f.work(of, at, look)
		if at = next; over {
			progress = true
		} else {
			misses++
		}
	}
	f.mu.Unlock()
	box.scatter()
	f.mu.Lock()
	return progress
}

// awaitPart waits for the next part of a read, and sends it; true means that the read has
// ended, or waits for something else, on a worker. What is sent in several parts has a
// small MaxRecvDataSegmentLength.
func (t *task) awaitPart() (over bool) {
	if t.aborted.Load() {
		return false
	}
	var buf *buffer
	if !t.outbox().backedUp() {
		buf = t.s.reads.tryGet(t.segment(t.toSend() - t.sent))
	}
	if buf == nil {
		t.s.workers.submit(op{t: t, call: proceedOp})
		return true
	}
	return t.sendPart(buf, t.cmd.ReadAt(buf.b, t.sent))
}

// fetched ends a read if its data is there, or hands it to a worker if there is something
// else to wait for; false means that it is to be waited for.
func (t *task) fetched() bool {
	switch t.readNow() {
	case scsi.Fetching:
		return false
	case scsi.Blocks:
		t.s.workers.submit(op{t: t, call: proceedOp})
	}
	return true
}

// wait returns when nothing is left; the tasks are aborted.
func (f *fetchers) wait() { f.wg.Wait() }

// drop takes aborted tasks out of the queues.
func (f *fetchers) drop() {
	var dropped []*task
	f.mu.Lock()
	for lun, of := range f.of {
		for i := 0; i < len(of.queue); {
			if of.queue[i].aborted.Load() {
				dropped = append(dropped, f.remove(of, i))
			} else {
				i++
			}
		}
		f.tidy(lun, of)
	}
	f.mu.Unlock()
	for _, t := range dropped {
		t.finish(scsi.StatusGood) // it ends
	}
}
