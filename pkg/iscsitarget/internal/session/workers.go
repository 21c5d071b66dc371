package session

import (
	"slices"
	"sync"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// op is one call that may block, of one task.
type op struct {
	t    *task
	call func(op)
	// buf[from:n] goes to offset off+from of the task's data.
	buf     *buffer
	from, n int
	off     int64
}

// workers run a session's blocking calls, limit at once, in the order they came, but
// those of tasks at the head of the queue before others. A worker lives as long as
// there is something to do.
type workers struct {
	limit   int
	mu      sync.Mutex
	queue   []op
	running int
	wg      sync.WaitGroup
}

// submit queues a call. It comes from the reader or from a worker, never after
// wait.
func (w *workers) submit(o op) {
	o.t.shared.Store(true)
	w.mu.Lock()
	if o.t.head {
		w.queue = slices.Insert(w.queue, 0, o)
	} else {
		w.queue = append(w.queue, o)
	}
	start := w.running < w.limit
	if start {
		w.running++
		w.wg.Add(1)
	}
	w.mu.Unlock()
	if start {
		go w.run()
	}
}

func (w *workers) run() {
	defer w.wg.Done()
	for {
		w.mu.Lock()
		if len(w.queue) == 0 {
			w.running--
			w.queue = nil
			w.mu.Unlock()
			return
		}
		o := w.queue[0]
		w.queue[0] = op{}
		w.queue = w.queue[1:]
		w.mu.Unlock()
		o.call(o)
	}
}

func (w *workers) wait() { w.wg.Wait() }

// drop takes the calls of aborted tasks out of the queue: they must not wait for
// workers that are stuck in a device.
func (w *workers) drop() {
	w.mu.Lock()
	var dropped []op
	w.queue = slices.DeleteFunc(w.queue, func(o op) bool {
		gone := o.t.aborted.Load()
		if gone {
			dropped = append(dropped, o)
		}
		return gone
	})
	w.mu.Unlock()
	for _, o := range dropped {
		o.buf.free()
		o.t.finish(scsi.StatusGood) // of an aborted task: it ends
	}
}

// granter waits for memory on behalf of the bursts of Data-Out that found none, one
// after another. It is no worker: workers give back the memory
// that it waits for.
type granter struct {
	mu      sync.Mutex
	queue   []*burst
	running bool
	closed  bool // wait was called
	wg      sync.WaitGroup
}

func (g *granter) submit(b *burst) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		b.t.solicit(b, nil) // of a task that was aborted: it ends
		return
	}
	g.queue = append(g.queue, b)
	start := !g.running
	if start {
		g.running = true
		g.wg.Add(1)
	}
	g.mu.Unlock()
	if start {
		go g.run()
	}
}

func (g *granter) run() {
	defer g.wg.Done()
	for {
		g.mu.Lock()
		if len(g.queue) == 0 {
			g.running = false
			g.mu.Unlock()
			return
		}
		b := g.queue[0]
		g.queue = g.queue[1:]
		g.mu.Unlock()
		b.t.solicit(b, b.t.s.writes.get(int(b.length), &b.t.aborted))
	}
}

func (g *granter) wait() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}

// drop takes aborted tasks out of the queue.
func (g *granter) drop() {
	g.mu.Lock()
	var dropped []*burst
	g.queue = slices.DeleteFunc(g.queue, func(b *burst) bool {
		gone := b.t.aborted.Load()
		if gone {
			dropped = append(dropped, b)
		}
		return gone
	})
	g.mu.Unlock()
	for _, b := range dropped {
		b.t.solicit(b, nil)
	}
}
