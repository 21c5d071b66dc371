package scsi

import (
	"sync"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// groupCommit runs one Sync for all who wait for one. A caller joins the Sync
// that has not begun yet, as one that runs may have passed its writes by.
type groupCommit struct {
	mu   sync.Mutex
	next *commit       // that callers may still join
	last chan struct{} // closed when the newest commit is done
}

type commit struct {
	after <-chan struct{} // the commit before is done; nil: there is none
	done  chan struct{}
	err   error
}

// wait returns the outcome of a run of sync that began after the call.
func (g *groupCommit) wait(sync func() error) error {
	c, leads := g.join()
	if leads {
		g.lead(c, sync)
	}
	<-c.done
	return c.err
}

func (g *groupCommit) join() (c *commit, leads bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next != nil {
		return g.next, false
	}
	g.next = &commit{after: g.last, done: make(chan struct{})}
	g.last = g.next.done
	return g.next, true
}

// lead waits for the commit before, closes this one to others and runs it.
func (g *groupCommit) lead(c *commit, sync func() error) {
	defer close(c.done)
	if c.after != nil {
		<-c.after
	}
	g.mu.Lock()
	g.next = nil
	g.mu.Unlock()
	c.err = blockdev.ErrLostWrites // nobody takes a Sync that panics for one that worked
	c.err = sync()
}
