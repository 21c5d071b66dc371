package scsi

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Attribute is a task attribute (SAM-5 section 8.6), with the numbers of iSCSI
// (RFC 7143 section 11.3.1), which are those of most transports.
type Attribute uint8

// The task attributes. Untagged counts as Simple.
const (
	Untagged Attribute = iota
	Simple
	Ordered
	HeadOfQueue
	ACA // of those that are let in while an ACA condition stands
)

// Valid says whether a command may have the attribute.
func (a Attribute) Valid() bool { return a <= ACA }

// Waiter is a task that waits for its turn.
type Waiter interface {
	// Enable says, once, that the turn has come. It must not wait for
	// anything.
	Enable()
}

// Turn is a task's place in a task set. The zero value is none; it must not be
// copied once the task has joined. All methods may be called concurrently.
type Turn struct {
	set    *taskSet
	epoch  *epoch // nil at the head of the queue
	waiter Waiter
	left   bool // guarded by set.mu
}

// taskSet keeps the tasks of a logical unit, or of one I_T_L nexus where TST says
// so, in the order that their attributes ask for (SAM-5 section 8): a SIMPLE task
// waits for older ORDERED ones, an ORDERED one for all that are older, both for
// those at the head of the queue, which wait for nobody.
//
// The queue is made of epochs: the SIMPLE tasks that came one after the other
// share one, an ORDERED task has its own. The first of them has its turn. Where
// all tasks are SIMPLE there is one epoch, which stays, and joining or leaving it
// is a matter of counting. While an ACA condition stands (aca.go) nobody's turn comes.
type taskSet struct {
	mu    sync.Mutex
	heads int // tasks at the head of the queue
	queue []*epoch

	faulted []*itl      // that have an ACA condition: the first one's is in effect
	acaTask *Turn       // the task with the ACA attribute
	aca     atomic.Bool // some have faulted, for who does not hold mu
}

// epoch is a number of tasks that have their turn together.
type epoch struct {
	ordered bool
	tasks   int // that have not ended
	waiting []*Turn
}

// join takes a command's task in; false means that its turn is to come. It refuses
// one that ACA keeps out, which has no turn.
func (s *taskSet) join(t *Turn, c *Command, w Waiter) (enabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := c.attribute
	if a == ACA || len(s.faulted) > 0 {
		return s.joinGuarded(t, c, w)
	}
	t.set, t.waiter = s, w
	if a == HeadOfQueue {
		s.heads++
		return true
	}
	t.epoch = s.last(a == Ordered)
	t.epoch.tasks++
	if s.heads == 0 && t.epoch == s.queue[0] {
		return true
	}
	t.epoch.waiting = append(t.epoch.waiting, t)
	return false
}

// last is the epoch for a new task, at the end of the queue.
func (s *taskSet) last(ordered bool) *epoch {
	if n := len(s.queue); n > 0 && !ordered && !s.queue[n-1].ordered {
		return s.queue[n-1]
	}
	e := &epoch{ordered: ordered}
	s.queue = append(s.queue, e)
	s.trim()
	return e
}

// trim takes epochs that are over from the front of the queue.
func (s *taskSet) trim() {
	for len(s.queue) > 1 && s.queue[0].tasks == 0 {
		s.queue[0] = nil
		s.queue = s.queue[1:]
	}
}

// Leave ends the task's place. It says whether the task's turn never came, and
// tells those whose turn comes by it. A second call does nothing.
func (t *Turn) Leave() (waited bool) {
	if t.set == nil {
		return false
	}
	waited, ready := t.set.leave(t)
	enable(ready)
	return waited
}

func (s *taskSet) leave(t *Turn) (waited bool, ready []*Turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.left {
		return false, nil
	}
	t.left = true
	if s.acaTask == t {
		s.acaTask = nil
	}
	if e := t.epoch; e != nil {
		e.tasks--
		if i := slices.Index(e.waiting, t); i >= 0 {
			e.waiting = slices.Delete(e.waiting, i, i+1)
			waited = true
		}
	} else {
		s.heads--
	}
	return waited, s.ready()
}

// ready takes out those whose turn has come.
func (s *taskSet) ready() []*Turn {
	if s.heads > 0 || len(s.faulted) > 0 || len(s.queue) == 0 {
		return nil
	}
	s.trim()
	e := s.queue[0]
	ready := e.waiting
	e.waiting = nil
	return ready
}

// Join takes a task into the task set of the unit that the command is for. true
// means that it waits: [Waiter.Enable] says when its turn has come, unless
// [Turn.Leave] says before that it has not. A command for no unit, and one that
// has failed already, joins no task set; one that ACA keeps out has failed by it.
func (c *Command) Join(t *Turn, w Waiter) (waits bool) {
	if c.itl == nil || c.Status.code != Good {
		return false
	}
	return !c.itl.taskSet().join(t, c, w)
}

// taskSet is the one that a new task belongs to. Whatever becomes of TST, a nexus
// stays in the one that its ACA condition is in.
func (l *itl) taskSet() *taskSet {
	if s := l.fault.Load(); s != nil {
		return s
	}
	if l.unit.settings.Load().SetPerNexus {
		return &l.tasks
	}
	return &l.unit.tasks
}

// Again decodes the command anew, for a task whose turn came late: what the
// tasks before it changed, as reservations and mode pages, counts. What comes out
// has the same Kind, Dir and Length unless it has failed.
func (c *Command) Again() Command {
	next := request{nexus: c.itl.nexus, itl: c.itl, op: c.op, cdb: c.cdb}.command()
	next.attribute = c.attribute
	if next.Status.code == Good && (next.Kind != c.Kind || next.Dir != c.Dir || next.Kind != Done && next.Length != c.Length) {
		next.Status = next.inFormat(SenseInternalTargetFailure)
	}
	return next
}
