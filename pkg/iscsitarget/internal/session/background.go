package session

import (
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// What is here ends reads that the device does by itself (blockdev.BackgroundReader). The
// reader of a connection looks after them (attend.go); what it leaves is a goroutine's of the
// device. Both answer other sessions' reads too, and wait for no initiator.

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
	s, c := t.s, t.conn.Load() // it may be over before BeginRead returns
	device := t.cmd.BeginRead(buf.b, t)
	if device == nil {
		s.background.Done()
		t.background.buf = nil
		buf.free()
		return false
	}
	c.attends = true
	if !slices.Contains(c.devices, device) {
		c.devices = append(c.devices, device)
	}
	return true
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
	default:
		t.sendWhole(buf)
	}
}

// Flush sends the answers that ReadDone has gathered.
func (t *task) Flush() {
	defer t.s.background.Done()
	t.background.box.scatterNow()
}
