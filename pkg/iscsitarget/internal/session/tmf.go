package session

import (
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// function is a task management function.
type function struct {
	// perform does it, then calls answer.
	perform func(c *Connection, req pdu.TaskManagement, unit *scsi.Unit, answer func(response byte))
	// level is the least iSCSIProtocolLevel that has it.
	level uint32
	reach reach
	// reported is what REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS says of it.
	reported scsi.TaskFunctions
}

// reach is what a function is about.
type reach uint8

const (
	oneTask   reach = iota
	oneUnit         // and nothing of its tasks
	manyTasks       // of one unit: those that were sent before it are waited for
	allUnits        // of the target: those that were sent before it, and are missing, count as received
	noUnit          // nothing that its LUN field says
)

// functions has one entry a function of RFC 7143 section 11.5.1 and of RFC 7144;
// others are answered with "not supported".
var functions = [128]function{
	pdu.AbortTask:        {(*Connection).abortTask, 0, oneTask, scsi.DoesAbortTask},
	pdu.AbortTaskSet:     {(*Connection).abortTaskSet, 0, manyTasks, scsi.DoesAbortTaskSet},
	pdu.ClearACA:         {(*Connection).clearACA, 0, manyTasks, scsi.DoesClearACA},
	pdu.ClearTaskSet:     {(*Connection).clearTaskSet, 0, manyTasks, scsi.DoesClearTaskSet},
	pdu.LogicalUnitReset: {(*Connection).logicalUnitReset, 0, manyTasks, scsi.DoesLogicalUnitReset},
	pdu.TargetWarmReset:  {(*Connection).targetReset, 0, allUnits, 0},
	pdu.TargetColdReset:  {(*Connection).coldReset, 0, allUnits, 0},
	pdu.TaskReassign:     {(*Connection).reassign, 0, noUnit, 0},
	pdu.QueryTask:        {(*Connection).queryTask, 2, oneTask, scsi.DoesQueryTask},
	pdu.QueryTaskSet:     {(*Connection).queryTaskSet, 2, oneUnit, scsi.DoesQueryTaskSet},
	pdu.ITNexusReset:     {(*Connection).nexusReset, 2, allUnits, scsi.DoesNexusReset},
	pdu.QueryAsyncEvent:  {nil, 2, oneUnit, scsi.DoesQueryAsyncEvent}, // has more to answer
}

// Functions are the task management functions of a session with these parameters.
func Functions(p text.Params) (all scsi.TaskFunctions) {
	for _, f := range functions {
		if p.ProtocolLevel >= f.level {
			all |= f.reported
		}
	}
	return all
}

func (f *function) in(s *Session) bool {
	return (f.perform != nil || f.reported != 0) && s.Params.ProtocolLevel >= f.level
}

// taskManagement performs a Task Management Function Request (RFC 7143 section
// 11.5). The answer goes out when the tasks concerned have ended: it may be
// long after this call, and the reader does not wait for it.
func (c *Connection) taskManagement(p *pdu.PDU) {
	s := c.s
	req := pdu.ParseTaskManagement(&p.BHS)
	c.settle(p)
	if !s.manage(1) {
		c.reject(pdu.RejectImmediate, p)
		return
	}
	f := &functions[req.Function]
	unit := s.units.Lookup(req.LUN)
	switch {
	case !f.in(s):
		c.managed(req, pdu.TMFNotSupported)
	case unit == nil && f.reach < allUnits:
		c.managed(req, pdu.TMFLUNDoesNotExist)
	case f.reach == oneTask && s.missing(req):
		s.forgo(req.RefCmdSN)
		c.managed(req, pdu.TMFComplete)
	case (f.reach == manyTasks || f.reach == allUnits) && s.behind(req):
		if f.reach == allUnits {
			s.plug(req.CmdSN)
		}
		s.delayed = append(s.delayed, delayed{c, req, unit})
	default:
		c.perform(req, unit)
	}
}

func (c *Connection) perform(req pdu.TaskManagement, unit *scsi.Unit) {
	c.s.log.Info("task management", "function", req.Function, "initiator", c.s.Initiator)
	if req.Function == pdu.QueryAsyncEvent {
		c.queryAsyncEvent(req)
		return
	}
	functions[req.Function].perform(c, req, unit, func(response byte) { c.managed(req, response) })
}

func (c *Connection) managed(req pdu.TaskManagement, response byte) {
	c.respond(pdu.TaskManagementResponse{Response: response, ITT: req.ITT})
}

// respond answers a function (RFC 7143 section 11.6), behind the responses that were
// sent before on any connection.
func (c *Connection) respond(r pdu.TaskManagementResponse) {
	c.fenced(func() {
		c.outbox.post(r.Header(), takesStatSN)
		c.s.manage(-1)
	})
}

// delayed is a function that waits for commands that were sent before it.
type delayed struct {
	c    *Connection
	req  pdu.TaskManagement
	unit *scsi.Unit
}

// behind: commands that were sent before an immediate function have not come yet
// (RFC 7143 section 4.2.3.3, step b). A number that is none of the window's says
// nothing.
func (s *Session) behind(req pdu.TaskManagement) bool {
	return req.Immediate && s.window.classify(req.CmdSN) == early
}

// caughtUp performs the functions that have waited for what has come now.
func (s *Session) caughtUp() {
	for len(s.delayed) > 0 && !s.behind(s.delayed[0].req) {
		d := s.delayed[0]
		s.delayed = s.delayed[1:]
		d.c.perform(d.req, d.unit)
	}
}

// plug counts the numbers below one as received: a reset of the target does not
// wait for commands (RFC 7143 section 4.2.3.3). Those that came have their turn
// before it.
func (s *Session) plug(below uint32) {
	exp, _ := s.window.advertised()
	for ; exp != below; exp++ {
		if s.early[exp] == nil {
			s.forgo(exp)
		}
	}
}

// missing: the task that a function is about is not there, but its number is one
// that has yet to come, and came before the function's. RFC 7143 section 11.6.1
// has the number considered received then: without it nothing behind it would have
// its turn. A QUERY TASK changes nothing.
func (s *Session) missing(req pdu.TaskManagement) bool {
	if req.Function != pdu.AbortTask || s.tagInUse(req.RefTaskTag) || s.window.classify(req.RefCmdSN) == outside || !serialLess(req.RefCmdSN, req.CmdSN) {
		return false
	}
	h := s.early[req.RefCmdSN]
	return h == nil || h.pdu != nil && h.pdu.BHS.ITT() == req.RefTaskTag
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

// is matches the task that a function names.
func is(req pdu.TaskManagement) func(*task) bool {
	return func(t *task) bool { return t.itt == req.RefTaskTag && t.lun == req.LUN }
}

func (c *Connection) abortTask(req pdu.TaskManagement, _ *scsi.Unit, answer func(byte)) {
	found, named := atomic.Bool{}, is(req)
	match := func(t *task) bool {
		hit := named(t)
		if hit {
			found.Store(true)
		}
		return hit
	}
	c.s.abort(&abortion{then: func() {
		if found.Load() {
			answer(pdu.TMFComplete)
			return
		}
		answer(pdu.TMFTaskDoesNotExist)
	}}, match)
}

func (c *Connection) abortTaskSet(_ pdu.TaskManagement, unit *scsi.Unit, answer func(byte)) {
	c.s.clear([]*Session{c.s}, onUnit(unit), nil, func() { answer(pdu.TMFComplete) })
}

// clearTaskSet ends the tasks of all I_T nexuses, or of this one alone where each
// has its own task set (SAM-5 section 7.5).
func (c *Connection) clearTaskSet(_ pdu.TaskManagement, unit *scsi.Unit, answer func(byte)) {
	c.s.clear(c.s.sharing(unit), onUnit(unit), unit, func() { answer(pdu.TMFComplete) })
}

// clearACA is CLEAR ACA (SAM-5 section 7.4), which is ABORT TASK for the tasks with
// the ACA attribute. Commands that were sent before it are waited for: they are to
// find the ACA condition that they were sent into.
func (c *Connection) clearACA(req pdu.TaskManagement, unit *scsi.Unit, answer func(byte)) {
	match := onUnit(unit)
	c.s.abort(&abortion{then: func() {
		c.s.nexus.ClearACA(req.LUN)
		answer(pdu.TMFComplete)
	}}, func(t *task) bool { return t.aca && match(t) })
}

func (c *Connection) logicalUnitReset(_ pdu.TaskManagement, unit *scsi.Unit, answer func(byte)) {
	c.s.clear(c.s.host.Peers(), onUnit(unit), nil, func() {
		unit.Reset()
		answer(pdu.TMFComplete)
	})
}

func (c *Connection) targetReset(_ pdu.TaskManagement, _ *scsi.Unit, answer func(byte)) {
	c.s.clear(c.s.host.Peers(), anyTask, nil, func() {
		for _, u := range c.s.host.Units() {
			u.Reset()
		}
		answer(pdu.TMFComplete)
	})
}

// coldReset is a power on event (RFC 7143 section 11.5.1): every session at the
// target ends, this connection behind its answer.
func (c *Connection) coldReset(_ pdu.TaskManagement, _ *scsi.Unit, answer func(byte)) {
	peers := c.s.host.Peers()
	c.s.clear(peers, anyTask, nil, func() {
		for _, u := range c.s.host.Units() {
			u.PowerOn()
		}
		answer(pdu.TMFComplete)
		for _, peer := range peers {
			if peer != c.s {
				peer.Close()
			}
		}
		c.closeBehind()
	})
}

// nexusReset is I_T NEXUS RESET (RFC 7144, SAM-5 section 7.6): an I_T nexus loss
// that the session survives.
func (c *Connection) nexusReset(_ pdu.TaskManagement, _ *scsi.Unit, answer func(byte)) {
	c.s.clear([]*Session{c.s}, anyTask, nil, func() {
		c.s.nexus.Lose()
		answer(pdu.TMFComplete)
	})
}

func (c *Connection) queryTask(req pdu.TaskManagement, _ *scsi.Unit, answer func(byte)) {
	answer(c.s.query(is(req)))
}

func (c *Connection) queryTaskSet(_ pdu.TaskManagement, unit *scsi.Unit, answer func(byte)) {
	answer(c.s.query(onUnit(unit)))
}

// query says whether there is such a task (RFC 7144): one whose status is on its
// way is none.
func (s *Session) query(match func(*task) bool) byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if !t.gone && match(t) {
			return pdu.TMFSucceeded
		}
	}
	return pdu.TMFComplete
}

// queryAsyncEvent is QUERY ASYNCHRONOUS EVENT (RFC 7144, SAM-5 section 7.10).
func (c *Connection) queryAsyncEvent(req pdu.TaskManagement) {
	r := pdu.TaskManagementResponse{Response: pdu.TMFComplete, ITT: req.ITT}
	if event, pending := c.s.nexus.Asynchronous(req.LUN); pending {
		r.Response, r.Additional = pdu.TMFSucceeded, event
	}
	c.respond(r)
}

// clear aborts tasks as a function of this session asks for it.
func (s *Session) clear(sessions []*Session, match func(*task) bool, unit *scsi.Unit, then func()) {
	c := clearing{by: s, sessions: sessions, match: match, unit: unit, function: true, then: then}
	c.start()
}
