package session

import (
	"slices"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// What is here is error recovery level 2 (RFC 7143 section 7): the tasks of a connection
// that is lost go on, as far as they can without one, and keep what they have to
// say. Over another connection the initiator logs the lost one out for recovery, or
// reinstates it, and then has its tasks given to that other one, by TASK REASSIGN. Those
// that are not within Time2Wait and Time2Retain end.

// lostLimit is how many lost connections a session keeps the tasks of: those of the
// oldest end beyond it.
const lostLimit = 8

// retained is a connection's state while it is lost.
type retained struct {
	lost bool // its tasks wait for another connection
	// released: it was logged out for recovery, or reinstated.
	released bool
	// waiting are the reassignments that came before the connection was lost.
	waiting []func()
	// abandoned is closed when nobody is to recover what is left.
	abandoned chan struct{}
	// over: nobody recovers it any more, and its tasks end.
	over bool
}

// recovers says whether what a connection leaves behind may be recovered. Session.mu
// is held.
func (s *Session) recovers(c *Connection) bool {
	return s.Params.ErrorRecoveryLevel == 2 && !s.closing && !c.loggedOut.Load() && s.Params.DefaultTime2Retain > 0
}

// lose puts a connection that has ended among those that are lost, as depart does, and
// has its tasks stop asking for data. Session.mu is held, and given up.
func (s *Session) lose(c *Connection) {
	s.connections = slices.DeleteFunc(s.connections, func(other *Connection) bool { return other == c })
	s.lost = append(s.lost, c)
	s.abandonSome()
	stopped := map[*task][]*burst{}
	for _, t := range s.tasks {
		if c.allegiant(t) && !t.gone {
			t.halted.Store(true)
			if t.expectOut > 0 {
				t.calls++
				stopped[t] = t.breakBursts()
			}
		}
	}
	s.mu.Unlock()
	s.reads.wake()
	for t, bursts := range stopped {
		t.closeBursts(bursts)
		t.step(t.finish(scsi.StatusGood))
	}
	s.mu.Lock()
	waiting := c.retained.waiting
	c.retained.lost, c.retained.waiting = true, nil
	s.mu.Unlock()
	for _, reassign := range waiting {
		reassign()
	}
	s.log.Info("connection lost: its commands wait for another one", "cid", c.CID)
	close(c.gone)
}

// abandonSome gives up the oldest of the lost connections, where there are too many.
// Session.mu is held.
func (s *Session) abandonSome() {
	n := 0
	for _, c := range slices.Backward(s.lost) {
		if n++; n > lostLimit {
			c.giveUp()
		}
	}
}

// giveUp has nobody recover what a lost connection has left behind. Session.mu is held.
func (c *Connection) giveUp() {
	if !c.retained.over {
		c.retained.over = true
		close(c.retained.abandoned)
	}
}

// retain waits until nobody recovers what a lost connection has left behind any more.
func (s *Session) retain(c *Connection) {
	timer := time.NewTimer(time.Duration(s.Params.DefaultTime2Wait+s.Params.DefaultTime2Retain) * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.retained.abandoned:
	case <-s.quit:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.giveUp()
}

// breakBursts marks the bursts of a task whose data comes no more, and returns them
// to be closed: what has come is written, the rest is to be asked for again.
// Session.mu is held.
func (t *task) breakBursts() (broken []*burst) {
	for _, b := range append(t.out.solicited[:], t.out.unsolicited) {
		if b != nil && (b.ttt != 0 || b == t.out.unsolicited) {
			b.broken = true
			broken = append(broken, b)
		}
	}
	return broken
}

func (t *task) closeBursts(bursts []*burst) {
	for _, b := range bursts {
		t.closeBurst(b)
	}
}

// lost: the connection of the task has ended. Session.mu is held.
func (t *task) lost() bool { return t.conn.Load().departing }

// pause ends the part of a worker that was halted: the task is aborted, or waits for
// another connection.
func (t *task) pause() {
	s := t.s
	s.mu.Lock()
	if t.aborted.Load() || s.over {
		s.mu.Unlock()
		s.end(t, nil)
		return
	}
	if !t.lost() { // it has another one by now
		t.halted.Store(false)
		s.mu.Unlock()
		s.workers.submit(op{t: t, call: proceedOp})
		return
	}
	t.calls--
	t.again.paused = true
	s.mu.Unlock()
}

// logoutForRecovery removes a connection for recovery (RFC 7143 section 11.14, reason
// 2).
func (c *Connection) logoutForRecovery(req pdu.LogoutRequest) {
	s := c.s
	answer := pdu.LogoutResponse{ITT: req.ITT, Time2Wait: uint16(s.Params.DefaultTime2Wait), Time2Retain: uint16(s.Params.DefaultTime2Retain)}
	s.mu.Lock()
	all := slices.Concat(s.connections, s.lost)
	i := slices.IndexFunc(all, func(other *Connection) bool { return other.CID == req.CID && !other.retained.over })
	switch {
	case s.Params.ErrorRecoveryLevel < 2 || s.Params.DefaultTime2Retain == 0:
		answer.Response, answer.Time2Retain = logoutNoRecovery, 0
	case i < 0:
		answer = pdu.LogoutResponse{Response: logoutNoCID, ITT: req.ITT}
	default:
		for _, other := range all[i:] { // several may have been lost one after another
			other.retained.released = other.retained.released || other.CID == req.CID
		}
	}
	s.mu.Unlock()
	c.outbox.post(answer.Header(), takesStatSN)
	switch {
	case answer.Response != logoutClosed:
	case all[i] == c:
		c.leaving = true
		c.outbox.finish()
	default:
		_ = all[i].conn.Close()
	}
}

// reassign is TASK REASSIGN (RFC 7143 section 11.5.1): the task goes on over this
// connection. Its answer goes first.
func (c *Connection) reassign(req pdu.TaskManagement, _ *scsi.Unit, answer func(byte)) {
	s := c.s
	s.mu.Lock()
	t, from := s.leftBehind(req)
	if from == nil {
		from = s.toBeLost() // the task may be taken in yet, of what has come before
	}
	if from != nil && from.retained.released && !from.retained.lost {
		from.retained.waiting = append(from.retained.waiting, func() { c.reassign(req, nil, answer) })
		s.mu.Unlock()
		return
	}
	response := byte(pdu.TMFComplete)
	switch {
	case s.Params.ErrorRecoveryLevel < 2:
		response = pdu.TMFNoReassignment
	case t == nil:
		response = pdu.TMFTaskDoesNotExist
	case !from.retained.released:
		response = pdu.TMFStillAllegiant
	case !t.has(req.ExpDataSN) || c.departing: // then nobody hears it
		response = pdu.TMFRejected
	}
	if response != pdu.TMFComplete {
		s.mu.Unlock()
		answer(response)
		return
	}
	c.outbox.post(pdu.TaskManagementResponse{Response: response, ITT: req.ITT}.Header(), takesStatSN)
	goesOn := t.moveTo(c, from, req.ExpDataSN)
	s.mu.Unlock()
	s.manage(-1)
	if goesOn != nil {
		s.workers.submit(op{t: t, call: goesOn})
	}
}

// moveTo gives the task another connection, over which it sends what the initiator
// has not got. What it returns, if anything, is a call that is counted in. Session.mu
// is held.
func (t *task) moveTo(c, from *Connection, expDataSN uint32) func(op) {
	t.conn.Store(c)
	t.halted.Store(t.aborted.Load())
	if t.expectOut > 0 {
		t.out.r2tSN = expDataSN // what is asked for anew has the numbers of R2Ts that were lost
	} else {
		t.again.acknowledged(t, expDataSN)
	}
	t.sendAll(c)
	if t.again.stated {
		a := from.outbox.takeBack(t)
		c.outbox.postStatus(t.restated(a.header), a.data, t)
	}
	if t.gone || t.aborted.Load() {
		return nil
	}
	switch {
	case t.again.paused:
		t.again.paused = false
		t.calls++
		return proceedOp
	case t.expectOut > 0:
		t.calls++
		return goOnOp
	}
	return nil
}

// toBeLost returns a connection that was logged out for recovery, and is not lost yet.
// Session.mu is held.
func (s *Session) toBeLost() *Connection {
	for _, c := range slices.Concat(s.connections, s.lost) {
		if c.retained.released && !c.retained.lost && !c.retained.over {
			return c
		}
	}
	return nil
}

// leftBehind finds the task that is to be reassigned, and its connection. Session.mu
// is held.
func (s *Session) leftBehind(req pdu.TaskManagement) (*task, *Connection) {
	t := s.tasks[req.RefTaskTag]
	if t != nil && !t.aborted.Load() && t.lun == req.LUN && (!t.gone || !t.again.stated) && !t.conn.Load().retained.over {
		return t, t.conn.Load()
	}
	for _, c := range s.lost {
		if c.retained.over {
			continue // what it has kept may go just now
		}
		if t := c.outbox.answered(req.RefTaskTag); t != nil && t.lun == req.LUN {
			return t, c
		}
	}
	return nil, nil
}

// has says whether the task can send what comes from a DataSN on. Session.mu is held.
func (t *task) has(expDataSN uint32) bool {
	if t.expectOut > 0 {
		return expDataSN <= t.out.r2tSN
	}
	first := t.dataSN - uint32(len(t.again.parts))
	return !serialLess(expDataSN, first) && !serialLess(t.dataSN, expDataSN)
}

// takeBack takes the status of a task out of those that are kept.
func (o *outbox) takeBack(t *task) answer {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.unacked, func(a answer) bool { return a.t == t })
	a := o.unacked[i]
	o.kept -= a.size()
	o.unacked = slices.Delete(o.unacked, i, i+1)
	return a
}
