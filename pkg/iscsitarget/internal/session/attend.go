package session

// A reader that has begun reads which the medium works for looks after them between the
// commands that come: those of the page cache (fetch.go) and those past it (background.go).
// Where it has to wait for something else it leaves them to others.

// glanceInterval is how many PDUs a reader that has more of them takes in before it looks
// after its reads.
const glanceInterval = 16

// attendRounds is how many times a reader looks after reads, which may be others', before it
// sees to its own connection.
const attendRounds = 64

// glance is for a reader that has more PDUs in hand: what is there by now it ends, and
// the answers leave, so that the initiator can go on.
func (c *Connection) glance() {
	if !c.attends && c.s.fetchers.pending.Load() == 0 {
		return
	}
	if c.glanced++; c.glanced%glanceInterval == 0 && c.lookAfterReads() {
		c.outbox.uncork()
		c.outbox.cork()
	}
}

// attend is for a reader that is about to wait for what comes. It ends the reads whose
// data is there, until something has come; where it has to wait for that too it leaves
// what is left.
func (c *Connection) attend() {
	for round := 1; c.attends; round++ {
		c.outbox.cork()
		progress := c.lookAfterReads()
		c.outbox.uncork()
		switch {
		case c.outbox.socket.nowait != nil && c.outbox.socket.nowait.Readable():
			return
		case !progress || round == attendRounds:
			c.leaveReads()
		}
	}
}

// lookAfterReads ends the reads whose data is there; false means that there was none.
func (c *Connection) lookAfterReads() (progress bool) {
	if c.s.fetchers.pending.Load() > 0 {
		progress = c.s.fetchers.sweep()
	}
	for _, device := range c.devices {
		progress = device.Reap() || progress
	}
	return progress
}

// leaveReads has others wait for the reads that the reader has attended to.
func (c *Connection) leaveReads() {
	if !c.attends {
		return
	}
	c.attends = false
	c.s.fetchers.leave()
	for _, device := range c.devices {
		device.Leave()
	}
	clear(c.devices)
	c.devices = c.devices[:0]
}
