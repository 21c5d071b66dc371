package scsi

import "slices"

// Auto contingent allegiance (ACA, SAM-5 section 5.10) is a command's way to have
// the tasks behind it wait when it fails. A command whose CDB has the NACA bit set
// and that ends with CHECK CONDITION establishes an ACA condition for its I_T_L
// nexus, the faulted one. Until that is cleared no dormant task of the task set has
// its turn, and of new commands hardly any is let in. Tasks that have their turn
// already go on: what has reached the device cannot be held back.
//
// A task set remembers the nexuses that have a condition; the first one's is in
// effect. Another comes behind it only by a task that had its turn before, and
// failed since: it does not lose the order that it asked for.

// nacaBit of a CDB's CONTROL byte asks for ACA (SAM-5 section 5.2).
const nacaBit = 1 << 2

// The CDBs whose CONTROL is byte 1 (SPC-4 section 4.2). No command here has one of
// them, but a command fails by that, too.
const (
	extendedCDB       = 0x7E
	variableLengthCDB = 0x7F
)

// naca says whether a CDB asks for ACA. The CDBs of groups that are reserved or
// vendor specific have no CONTROL byte that anybody knew.
func naca(cdb *[16]byte) bool {
	at := layouts[cdb[0]>>5].control
	if cdb[0] == extendedCDB || cdb[0] == variableLengthCDB {
		at = 1
	}
	return at != 0 && cdb[at]&nacaBit != 0
}

// preemptsAndAborts: the command can clear the ACA condition of another nexus, and
// so must not wait for it.
func preemptsAndAborts(cdb *[16]byte) bool {
	return cdb[0] == 0x5F && cdb[1]&0x1F == actionPreemptAndAbort
}

// guarded says whether more is to be asked of a new command than its CDB.
func (r request) guarded(a Attribute) bool {
	return a == ACA || r.itl != nil && r.itl.taskSet().aca.Load()
}

// commandGuarded is command for a task that ACA may keep out: it takes no unit
// attention then.
func (r request) commandGuarded(a Attribute) Command {
	st := SenseInvalidMessage
	if r.itl != nil {
		st = r.itl.taskSet().entrance(r.itl, a, &r.cdb)
	}
	c := Command{itl: r.itl, op: r.op, cdb: r.cdb, attribute: a}
	switch {
	case st == StatusGood || st == SenseInvalidMessage: // of which all else takes precedence
		c = r.command()
		c.attribute, c.aca = a, a == ACA && st == StatusGood
	case r.itl != nil:
		c.descriptor = r.itl.unit.settings.Load().DescriptorSense
	}
	if st.code != Good && c.Status.code == Good {
		c.refuse(st)
	}
	return c
}

// refuse makes a command one that has failed.
func (c *Command) refuse(st Status) {
	*c = Command{itl: c.itl, op: c.op, cdb: c.cdb, descriptor: c.descriptor, attribute: c.attribute}
	c.Status = c.inFormat(st)
}

// entrance is admits for who does not hold the lock.
func (s *taskSet) entrance(l *itl, a Attribute, cdb *[16]byte) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.admits(l, a, cdb)
}

// admits says what becomes of a new command of a nexus, as SAM-5 sections 5.10.3
// and 5.10.4 have it for the faulted one and for others; without an ACA condition
// the ACA attribute is an error (section 8.6.5). s.mu is held.
func (s *taskSet) admits(l *itl, a Attribute, cdb *[16]byte) Status {
	if len(s.faulted) == 0 {
		if a == ACA {
			return SenseInvalidMessage
		}
		return StatusGood
	}
	mine := s.faulted[0] == l
	switch {
	case mine && a == ACA && s.acaTask == nil:
		return StatusGood
	case mine || a == ACA:
		return StatusACAActive
	case preemptsAndAborts(cdb):
		return StatusGood
	case naca(cdb):
		return StatusACAActive
	}
	return StatusBusy
}

// joinGuarded is join for a task that ACA may keep out. One that it lets in has its
// turn at once: it is there to end the condition. s.mu is held.
func (s *taskSet) joinGuarded(t *Turn, c *Command, w Waiter) (enabled bool) {
	if st := s.admits(c.itl, c.attribute, &c.cdb); st.code != Good {
		c.refuse(st)
		return true
	}
	if c.attribute == ACA {
		s.acaTask = t
	}
	t.set, t.waiter = s, w
	s.heads++
	return true
}

// Fault is to be called for a command that ends with CHECK CONDITION, before its
// place in the task set is left and its status told: with NACA set it establishes
// an ACA condition (SAM-5 section 5.10.2), otherwise a task with the ACA attribute
// clears the one that it was let in by (section 5.10.5).
func (c *Command) Fault() {
	l, asks := c.itl, naca(&c.cdb)
	if l == nil || !asks && !c.aca {
		return
	}
	l.unit.mu.Lock()
	var ready []*Turn
	if asks {
		l.establishACA()
	} else {
		ready = l.clearACA()
	}
	l.unit.mu.Unlock()
	enable(ready)
}

// establishACA does nothing for a nexus that has ended, since nobody would clear
// the condition. The unit's lock is held.
func (l *itl) establishACA() {
	if _, attached := l.unit.itls[l]; !attached || l.fault.Load() != nil {
		return
	}
	s := l.taskSet()
	l.fault.Store(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faulted = append(s.faulted, l)
	s.aca.Store(true)
}

// clearACA returns the tasks whose turn comes by it. The unit's lock is held.
func (l *itl) clearACA() []*Turn {
	s := l.fault.Load()
	if s == nil {
		return nil
	}
	l.fault.Store(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faulted = slices.DeleteFunc(s.faulted, func(other *itl) bool { return other == l })
	s.aca.Store(len(s.faulted) > 0)
	return s.ready()
}

// clearACA clears the ACA conditions of the nexuses that match.
func (u *Unit) clearACA(match func(*itl) bool) {
	var ready []*Turn
	u.mu.Lock()
	for l := range u.itls {
		if match(l) {
			ready = append(ready, l.clearACA()...)
		}
	}
	u.mu.Unlock()
	enable(ready)
}

// ClearACA is CLEAR ACA (SAM-5 section 7.4) on a LUN: it clears the ACA condition
// of this nexus, and does nothing where there is none, or another nexus's. The
// caller has ended the tasks with the ACA attribute.
func (n *Nexus) ClearACA(lun [8]byte) {
	if l := n.lookup(lun); l != nil {
		l.unit.clearACA(func(other *itl) bool { return other == l })
	}
}

// LoseACA is the part of an I_T nexus loss that cannot wait until the nexus's
// commands have ended: it clears its ACA conditions, which hold others up.
func (n *Nexus) LoseACA() {
	for _, l := range *n.luns.Load() {
		l.unit.clearACA(func(other *itl) bool { return other == l })
	}
}

// enable tells tasks that their turn has come. No lock is held.
func enable(ready []*Turn) {
	for _, t := range ready {
		t.waiter.Enable()
	}
}
