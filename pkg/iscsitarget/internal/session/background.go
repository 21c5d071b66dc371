package session

import (
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// What is here ends reads that the device does by itself (blockdev.BackgroundReader). The
// reader of a connection begins those of all commands that it has in hand together; a
// goroutine of the device's, which other sessions' reads need too, answers them, and waits
// for no initiator.

// submitInterval is how many reads are begun together at most.
const submitInterval = 16

// submits are the reads that the reader has had devices take, and is to submit.
type submits struct {
	to    []blockdev.BackgroundReader
	reads int
}

// background is a read of a task that its device does.
type background struct {
	buf *buffer
	box *outbox // that gathers
}

// beginRead has the device do a read, whole. The reader of the task's connection calls it.
func (t *task) beginRead() bool {
	n := t.toSend()
	if t.sent > 0 || int64(t.segment(n)) != n || t.outbox().backedUp() {
		return false
	}
	buf := t.s.reads.tryGet(int(n))
	if buf == nil {
		return false
	}
	t.shared.Store(true)
	t.background.buf = buf
	t.s.background.Add(1)
	device := t.cmd.BeginRead(buf.b, t)
	if device == nil {
		t.s.background.Done()
		t.background.buf = nil
		buf.free()
		return false
	}
	t.conn.Load().toSubmit(device)
	return true
}

// toSubmit remembers that there is a read to submit.
func (c *Connection) toSubmit(device blockdev.BackgroundReader) {
	if !slices.Contains(c.submits.to, device) {
		c.submits.to = append(c.submits.to, device)
	}
	if c.submits.reads++; c.submits.reads == submitInterval {
		c.submit()
	}
}

// submit begins the reads that devices have taken.
func (c *Connection) submit() {
	for _, device := range c.submits.to {
		device.Submit()
	}
	clear(c.submits.to)
	c.submits.to, c.submits.reads = c.submits.to[:0], 0
}

// ReadDone answers a read.
func (t *task) ReadDone(ok bool) {
	buf, box := t.background.buf, t.outbox()
	t.background = background{box: box}
	box.gather()
	switch {
	case t.aborted.Load():
		buf.free()
		t.finish(scsi.StatusGood) // it ends
	case !ok || !t.cmd.EndRead(int64(len(buf.b))):
		buf.free()
		t.s.workers.submit(op{t: t, call: proceedOp})
	case box.takes(len(buf.b)):
		t.sendPart(buf, scsi.StatusGood)
	default:
		t.s.workers.submit(op{t: t, call: sendReadOp, buf: buf})
	}
}

// sendReadOp sends what was read, on a worker.
func sendReadOp(o op) { o.t.sendPart(o.buf, scsi.StatusGood) }

// Flush sends the answers that ReadDone has gathered.
func (t *task) Flush() {
	defer t.s.background.Done()
	t.background.box.scatterNow()
}
