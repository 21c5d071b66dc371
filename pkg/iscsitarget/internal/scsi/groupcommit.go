package scsi

import "sync"

// groupCommit runs one Sync for all who wait for one. A caller joins the Sync
// that has not begun yet, as one that runs may have passed its writes by.
type groupCommit struct {
	mu      sync.Mutex
	next    *commit
	running sync.Mutex
}

type commit struct {
	done chan struct{}
	err  error
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
	if g.next == nil {
		g.next = &commit{done: make(chan struct{})}
		leads = true
	}
	return g.next, leads
}

// lead waits for the run before, closes the commit to others and runs it.
func (g *groupCommit) lead(c *commit, sync func() error) {
	g.running.Lock()
	defer g.running.Unlock()
	g.mu.Lock()
	g.next = nil
	g.mu.Unlock()
	c.err = sync()
	close(c.done)
}
