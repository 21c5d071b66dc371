package session

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// drainLimit is how long a function that aborts many tasks waits for the data that
// R2Ts of them have asked for. RFC 7143 section 4.2.3.3 sets no limit, but Linux's
// initiator sends none of it once it has sent LOGICAL UNIT RESET, without having
// negotiated FastAbort, and waits for the answer no longer than 30 s.
const drainLimit = 2 * time.Second

// abortion waits until the tasks that it aborts have ended, then runs then.
type abortion struct {
	left atomic.Int64
	then func()
	// drains: the tasks of a session without FastAbort end when their data has
	// come.
	drains bool
}

// one counts one ended task.
func (a *abortion) one() {
	if a.left.Add(-1) == 0 && a.then != nil {
		a.then()
	}
}

// abort aborts the session's tasks that match. Tasks that wait for their turn, for
// data, for memory or for a worker end at once, the others with the call that is
// under way.
func (s *Session) abort(a *abortion, match func(*task) bool) marks {
	a.left.Add(1) // ours, so that then runs once, after all are marked
	found := s.mark(a, match, false)
	a.one()
	return found
}

// marks are what mark found.
type marks struct {
	luns     [][8]byte // that tasks were for
	untold   bool      // tasks of others among them get no status
	draining bool      // some wait for data
}

// mark is abort for one session of several: others says that the tasks are aborted
// for another nexus.
func (s *Session) mark(a *abortion, match func(*task) bool, others bool) (found marks) {
	var idle, waiting []*task
	drains := a.drains && s.Params.TaskReporting != text.FastAbort
	s.mu.Lock()
	for _, t := range s.tasks {
		if !match(t) {
			continue
		}
		// A task whose status is on its way is waited for too, so that
		// the status goes before the answer to the function.
		a.left.Add(1)
		t.abortions = append(t.abortions, a)
		if t.aborted.Load() || t.gone {
			continue
		}
		found.add(t, others)
		if drains && t.out.owed() {
			t.draining, t.out.stopped, found.draining = true, true, true
			continue
		}
		t.abort()
		switch {
		case t.dormancy == dormant:
			waiting = append(waiting, t)
		case t.calls == 0:
			idle = append(idle, t)
		}
	}
	s.mu.Unlock()
	s.reap(idle, waiting)
	return found
}

// add counts a task in that is to be aborted. Session.mu is held.
func (m *marks) add(t *task, others bool) {
	if !slices.Contains(m.luns, t.lun) {
		m.luns = append(m.luns, t.lun)
	}
	t.told = others && t.tellsAborted()
	m.untold = m.untold || others && !t.told
}

// abort marks a task. Session.mu is held.
func (t *task) abort() {
	t.aborted.Store(true)
	t.halted.Store(true)
	t.out.stopped = true
	if t.cancel != nil {
		t.cancel()
	}
}

// hasten ends the tasks whose data an abortion has waited for long enough. What
// comes of it later is ignored.
func (s *Session) hasten(a *abortion) {
	var idle []*task
	s.mu.Lock()
	for _, t := range s.tasks {
		if t.draining && !t.aborted.Load() && slices.Contains(t.abortions, a) {
			t.abort()
			if t.calls == 0 {
				idle = append(idle, t)
			}
		}
	}
	s.mu.Unlock()
	s.reap(idle, nil)
}

// tellsAborted: the task's unit has TAS set (SPC-4 section 7.5.8).
func (t *task) tellsAborted() bool {
	u := t.s.units.Lookup(t.lun)
	return u != nil && u.TaskPolicy().TaskAborted
}

// reap ends aborted tasks that nothing works for.
func (s *Session) reap(idle, waiting []*task) {
	for _, t := range idle {
		s.end(t, nil)
	}
	for _, t := range waiting {
		if t.turn.Leave() { // else Enable is on its way
			t.finish(scsi.StatusGood)
		}
	}
	s.workers.drop()
	s.fetchers.drop()
	s.granter.drop()
	s.reads.wake()
	s.writes.wake()
}

// clearing aborts tasks in several sessions.
type clearing struct {
	by       *Session // on whose behalf; nil for none of them
	sessions []*Session
	match    func(*task) bool
	// unit is the one at which tasks are cleared: the nexuses of others that
	// get no status for them are told by COMMANDS CLEARED BY ANOTHER
	// INITIATOR. It is nil where units tell by themselves.
	unit *scsi.Unit
	// function: a task management function asks for it, and does as RFC 7143
	// sections 4.2.3.3 and 4.2.3.4 say.
	function bool
	// then runs when the tasks have ended.
	then func()

	abortion abortion
	found    map[*Session]marks
	limit    *time.Timer
}

// start marks the tasks.
func (c *clearing) start() {
	c.found = map[*Session]marks{}
	c.abortion.drains, c.abortion.then = c.function, c.ended
	c.abortion.left.Add(1)
	draining := false
	for _, peer := range c.sessions {
		m := peer.mark(&c.abortion, c.match, peer != c.by)
		c.found[peer] = m
		draining = draining || m.draining
	}
	if draining {
		c.limit = time.AfterFunc(drainLimit, c.hasten)
	}
	c.abortion.one()
}

func (c *clearing) hasten() {
	for _, peer := range c.sessions {
		peer.hasten(&c.abortion)
	}
}

// ended tells who is to be told: by a unit attention now, since a task that had
// taken it before would be aborted with the others.
func (c *clearing) ended() {
	if c.limit != nil {
		c.limit.Stop()
	}
	for peer, m := range c.found {
		if c.unit != nil && m.untold {
			c.unit.TasksCleared(peer.nexus)
		}
		if c.function && peer != c.by {
			peer.announce(m)
		}
	}
	c.then()
}

// announce sends an Asynchronous Message for each logical unit at which tasks were
// aborted for another initiator, where FastAbort was negotiated (RFC 7143 sections
// 4.2.3.4 and 11.9.1, event 5). The initiator sends no more data for them, and
// acknowledges that with a NOP-Out; until then the transfer tags are not used
// again, nor are they for a long time after it.
func (s *Session) announce(m marks) {
	if s.Params.TaskReporting != text.FastAbort {
		return
	}
	for _, c := range s.Connections() {
		for _, lun := range m.luns {
			c.outbox.post(pdu.AsyncMessage{Event: pdu.AsyncTasksAborted, LUN: lun}.Header(), takesStatSN)
		}
	}
}

// onUnit matches the tasks of a unit, whichever of a LUN's forms they came with.
func onUnit(unit *scsi.Unit) func(*task) bool {
	return func(t *task) bool { return t.s.units.Lookup(t.lun) == unit }
}

func anyTask(*task) bool { return true }

// sharing are the sessions whose tasks are in one task set of the unit with those
// of this session.
func (s *Session) sharing(unit *scsi.Unit) []*Session {
	if unit.TaskPolicy().SetPerNexus {
		return []*Session{s}
	}
	return s.host.Peers()
}

// fault ends a task with CHECK CONDITION where QERR has others aborted by that
// (SPC-4 section 7.5.8): the status goes when those have ended, since their
// initiators may then send them again. A task that has begun to end is left to it,
// or two faults would wait for each other. false means that QERR asks for nothing.
func (s *Session) fault(t *task, st scsi.Status, residual pdu.Residual) bool {
	unit := s.units.Lookup(t.lun)
	if unit == nil || unit.TaskPolicy().QueueError == scsi.KeepTasks {
		return false
	}
	sessions := []*Session{s}
	if unit.TaskPolicy().QueueError == scsi.AbortTaskSet {
		sessions = s.sharing(unit)
	}
	if t.aborted.Load() || !s.retire(t) {
		return false
	}
	match := onUnit(unit)
	c := clearing{by: s, unit: unit, sessions: sessions, match: func(other *task) bool { return !other.gone && match(other) }}
	c.then = func() {
		t.leave()
		t.postStatus(st, residual)
		s.forget(t)
	}
	c.start()
	return true
}

// AbortTasks aborts the commands that sessions have under way at a unit, as
// PREEMPT AND ABORT does (SPC-4 section 5.13.11.2.5), and returns when they have
// ended, or when ctx has. What their initiators get for it is what TAS says.
func AbortTasks(ctx context.Context, sessions []*Session, unit *scsi.Unit) {
	ended := make(chan struct{})
	c := clearing{unit: unit, sessions: sessions, match: onUnit(unit), then: func() { close(ended) }}
	c.start()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// AwaitTasks returns when the commands that sessions have under way at a unit have
// ended. The unit has been removed: no other command reaches it.
func AwaitTasks(sessions []*Session, unit *scsi.Unit) {
	ended := make(chan struct{})
	a := &abortion{then: func() { close(ended) }}
	a.left.Add(1) // ours, so that then runs once
	for _, s := range sessions {
		s.order.Lock() // what is being taken in now is a task then
		s.join(a, func(t *task) bool { return t.cmd.On(unit) })
		s.order.Unlock()
	}
	a.one()
	<-ended
}

// join has a wait for the session's tasks that match, as they are.
func (s *Session) join(a *abortion, match func(*task) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if match(t) {
			a.left.Add(1)
			t.abortions = append(t.abortions, a)
		}
	}
}
