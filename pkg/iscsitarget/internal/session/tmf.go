package session

import (
	"context"
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
)

// abortion waits until the tasks that it aborts have ended, then runs then.
type abortion struct {
	left atomic.Int64
	then func()
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
func (s *Session) abort(a *abortion, match func(*task) bool) {
	a.left.Add(1) // ours, so that then runs once, after all are marked
	s.mark(a, match, false)
	a.one()
}

// mark is abort for one session of several: others says that the tasks are aborted
// for another nexus. It returns whether there are tasks among them that get no
// status, and of which their nexus is to be told otherwise.
func (s *Session) mark(a *abortion, match func(*task) bool, others bool) (untold bool) {
	var idle, waiting []*task
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
		t.told = others && t.tellsAborted()
		untold = untold || others && !t.told
		t.aborted.Store(true)
		t.out.stopped = true
		if t.cancel != nil {
			t.cancel()
		}
		switch {
		case t.dormancy == dormant:
			waiting = append(waiting, t)
		case t.calls == 0:
			idle = append(idle, t)
		}
	}
	s.mu.Unlock()
	s.reap(idle, waiting)
	return untold
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
	s.granter.drop()
	s.reads.wake()
	s.writes.wake()
}

// function performs one task management function, then calls answer.
type function func(s *Session, req pdu.TaskManagement, unit *scsi.Unit, answer func(response byte))

// functions has one entry a function of RFC 7143 section 11.5.1; others are
// answered with "not supported".
var functions = [128]function{
	pdu.AbortTask:        (*Session).abortTask,
	pdu.AbortTaskSet:     (*Session).abortTaskSet,
	pdu.ClearTaskSet:     (*Session).clearTaskSet,
	pdu.LogicalUnitReset: (*Session).logicalUnitReset,
	pdu.TargetWarmReset:  (*Session).targetReset,
	pdu.TargetColdReset:  (*Session).coldReset,
}

// taskManagement performs a Task Management Function Request (RFC 7143 section
// 11.5). The answer goes out when the tasks concerned have ended: it may be
// long after this call, and the reader does not wait for it.
func (s *Session) taskManagement(p *pdu.PDU) error {
	req := pdu.ParseTaskManagement(&p.BHS)
	s.settle(p)
	s.outbox.room() // answers are posted: this bounds them
	answer := func(response byte) {
		s.outbox.post(pdu.TaskManagementResponse{Response: response, ITT: req.ITT}.Header(), takesStatSN)
		s.manage(-1)
	}
	perform := functions[req.Function]
	unit := s.units.Lookup(req.LUN)
	switch {
	case !s.manage(1):
		return s.reject(pdu.RejectImmediate, p)
	case perform == nil:
		answer(pdu.TMFNotSupported)
	case unit == nil && req.Function != pdu.TargetWarmReset && req.Function != pdu.TargetColdReset:
		answer(pdu.TMFLUNDoesNotExist)
	case req.Function == pdu.AbortTask && s.missing(req):
		s.forgo(req.RefCmdSN)
		answer(pdu.TMFComplete)
	default:
		s.log.Info("task management", "function", req.Function, "initiator", s.Initiator)
		perform(s, req, unit, answer)
	}
	return nil
}

// missing: the task to be aborted is not there, but its number is one that has yet
// to come, and came before the function's. RFC 7143 section 11.6.1 has the number
// considered received then: without it nothing behind it would have its turn.
func (s *Session) missing(req pdu.TaskManagement) bool {
	if s.tagInUse(req.RefTaskTag) || s.window.classify(req.RefCmdSN) == outside || !serialLess(req.RefCmdSN, req.CmdSN) {
		return false
	}
	held := s.early[req.RefCmdSN]
	return held == nil || held.BHS.ITT() == req.RefTaskTag
}

// manage counts functions under way; false where there are too many.
func (s *Session) manage(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && s.managing >= managementDepth {
		return false
	}
	s.managing += n
	return true
}

func (s *Session) abortTask(req pdu.TaskManagement, _ *scsi.Unit, answer func(byte)) {
	found := atomic.Bool{}
	match := func(t *task) bool {
		hit := t.itt == req.RefTaskTag && t.lun == req.LUN
		if hit {
			found.Store(true)
		}
		return hit
	}
	s.abort(&abortion{then: func() {
		if found.Load() {
			answer(pdu.TMFComplete)
			return
		}
		answer(pdu.TMFTaskDoesNotExist)
	}}, match)
}

func (s *Session) abortTaskSet(_ pdu.TaskManagement, unit *scsi.Unit, answer func(byte)) {
	s.abort(&abortion{then: func() { answer(pdu.TMFComplete) }}, onUnit(unit))
}

// clearTaskSet ends the tasks of all I_T nexuses, or of this one alone where each
// has its own task set (SAM-5 section 7.5).
func (s *Session) clearTaskSet(_ pdu.TaskManagement, unit *scsi.Unit, answer func(byte)) {
	clearTasks(s, unit, s.sharing(unit), onUnit(unit), func() { answer(pdu.TMFComplete) })
}

func (s *Session) logicalUnitReset(_ pdu.TaskManagement, unit *scsi.Unit, answer func(byte)) {
	s.abortEverywhere(onUnit(unit), func() {
		unit.Reset()
		answer(pdu.TMFComplete)
	})
}

func (s *Session) targetReset(_ pdu.TaskManagement, _ *scsi.Unit, answer func(byte)) {
	s.abortEverywhere(func(*task) bool { return true }, func() {
		for _, u := range s.host.Units() {
			u.Reset()
		}
		answer(pdu.TMFComplete)
	})
}

// coldReset is a power on event (RFC 7143 section 11.5.1): every session at the
// target ends, this one behind its answer.
func (s *Session) coldReset(_ pdu.TaskManagement, _ *scsi.Unit, answer func(byte)) {
	s.abortEverywhere(func(*task) bool { return true }, func() {
		for _, u := range s.host.Units() {
			u.PowerOn()
		}
		answer(pdu.TMFComplete)
		s.outbox.finish()
		for _, peer := range s.host.Peers() {
			if peer != s {
				peer.Close()
			}
		}
	})
}

// onUnit matches the tasks of a unit, whichever of a LUN's forms they came with.
func onUnit(unit *scsi.Unit) func(*task) bool {
	return func(t *task) bool { return t.s.units.Lookup(t.lun) == unit }
}

// abortEverywhere aborts tasks in all sessions of the target, whose units tell
// them of it.
func (s *Session) abortEverywhere(match func(*task) bool, then func()) {
	a := &abortion{then: then}
	a.left.Add(1)
	for _, peer := range s.host.Peers() {
		peer.mark(a, match, peer != s)
	}
	a.one()
}

// sharing are the sessions whose tasks are in one task set of the unit with those
// of this session.
func (s *Session) sharing(unit *scsi.Unit) []*Session {
	if unit.TaskPolicy().SetPerNexus {
		return []*Session{s}
	}
	return s.host.Peers()
}

// clearTasks aborts tasks at a unit in some sessions, on behalf of one or of none
// of them. The nexuses of others that get no status for them are told by COMMANDS
// CLEARED BY ANOTHER INITIATOR, when the tasks have ended: one that took the unit
// attention before would be aborted with it.
func clearTasks(by *Session, unit *scsi.Unit, sessions []*Session, match func(*task) bool, then func()) {
	var untold []*Session
	a := &abortion{then: func() {
		for _, peer := range untold {
			unit.TasksCleared(peer.nexus)
		}
		then()
	}}
	a.left.Add(1)
	for _, peer := range sessions {
		if peer.mark(a, match, peer != by) {
			untold = append(untold, peer)
		}
	}
	a.one()
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
	clearTasks(s, unit, sessions, func(other *task) bool { return !other.gone && match(other) }, func() {
		t.leave()
		s.outbox.postData(t.response(st, residual), senseSegment(st), takesStatSN)
		s.forget(t)
	})
	return true
}

// AbortTasks aborts the commands that sessions have under way at a unit, as
// PREEMPT AND ABORT does (SPC-4 section 5.13.11.2.5), and returns when they have
// ended, or when ctx has. What their initiators get for it is what TAS says.
func AbortTasks(ctx context.Context, sessions []*Session, unit *scsi.Unit) {
	ended := make(chan struct{})
	clearTasks(nil, unit, sessions, onUnit(unit), func() { close(ended) })
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
