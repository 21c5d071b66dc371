package scsi

import (
	"slices"
	"strings"
)

// reservationType is the TYPE of a persistent reservation (SPC-4 section
// 6.15.3.4).
type reservationType byte

const (
	noReservation              reservationType = 0
	writeExclusive             reservationType = 1
	exclusiveAccess            reservationType = 3
	writeExclusiveRegistrants  reservationType = 5
	exclusiveAccessRegistrants reservationType = 6
	writeExclusiveAll          reservationType = 7
	exclusiveAccessAll         reservationType = 8
)

// reservationTypes are those that can be asked for.
var reservationTypes = []reservationType{
	writeExclusive, exclusiveAccess, writeExclusiveRegistrants,
	exclusiveAccessRegistrants, writeExclusiveAll, exclusiveAccessAll,
}

func (t reservationType) valid() bool { return slices.Contains(reservationTypes, t) }

// barsReading says that others may not even read.
func (t reservationType) barsReading() bool {
	return t == exclusiveAccess || t == exclusiveAccessRegistrants || t == exclusiveAccessAll
}

// sharedByRegistrants: Registrants Only and All Registrants.
func (t reservationType) sharedByRegistrants() bool { return t >= writeExclusiveRegistrants }

// heldByAll: All Registrants.
func (t reservationType) heldByAll() bool { return t >= writeExclusiveAll }

// nexusID names an I_T nexus beyond the sessions that it has: a registration
// outlives them.
type nexusID struct {
	// Initiator is the initiator port's name; for iSCSI the ISID is in it.
	Initiator string `json:"initiator"`
	// TargetPort is a relative target port identifier.
	TargetPort uint16 `json:"targetPort"`
}

func (l *itl) id() nexusID {
	return nexusID{l.nexus.config.InitiatorPort, l.nexus.config.TPGT}
}

// node is the iSCSI name in the initiator port's.
func (n nexusID) node() string {
	name, _, _ := strings.Cut(n.Initiator, portSeparator)
	return name
}

// registration is a nexus's reservation key, and what goes with it.
type registration struct {
	nexusID
	Key uint64 `json:"key,string"`
	// AllTargetPorts: ALL_TG_PT was set.
	AllTargetPorts bool `json:"allTargetPorts,omitempty"`
	// Holder: it has the reservation. In a type of All Registrants, where
	// every registrant has it, nobody is marked.
	Holder bool `json:"holder,omitempty"`
}

// is says whether the registration is of a nexus.
func (r registration) is(id nexusID) bool {
	return r.Initiator == id.Initiator && (r.AllTargetPorts || r.TargetPort == id.TargetPort)
}

// maxRegistrations bounds what initiators can make a unit remember.
const maxRegistrations = 128

// reservations are a unit's reservations of either kind. A value that a unit
// has shown is never changed.
type reservations struct {
	// generation is PRGENERATION; it begins at 0 with every process.
	generation uint32
	// registrations are in the order in which they were made.
	registrations []registration
	kind          reservationType
	// persist is APTPL: what is registered outlives the process.
	persist bool
	// reserver holds the unit by RESERVE (SPC-2 section 7.21), nil for nobody.
	reserver *itl
}

// copy can be changed.
func (s *reservations) copy() reservations {
	c := *s
	c.registrations = slices.Clone(s.registrations)
	return c
}

// find returns the index of a nexus's registration, -1 where it has none.
func (s *reservations) find(id nexusID) int {
	for i := range s.registrations {
		if s.registrations[i].is(id) {
			return i
		}
	}
	return -1
}

// holds says whether the registration of that index, which may be -1, has the
// persistent reservation.
func (s *reservations) holds(i int) bool {
	return i >= 0 && s.kind != noReservation && (s.kind.heldByAll() || s.registrations[i].Holder)
}

// hold establishes a persistent reservation, which replaces any other.
func (s *reservations) hold(i int, t reservationType) {
	s.release()
	s.kind = t
	s.registrations[i].Holder = !t.heldByAll()
}

// release ends the persistent reservation.
func (s *reservations) release() {
	s.kind = noReservation
	for i := range s.registrations {
		s.registrations[i].Holder = false
	}
}

// allowance says under which reservations of another I_T nexus a command is
// processed: SPC-4 table "SPC-4 commands that are allowed in the presence of
// various reservations" and SBC-3's of the same name. What RESERVE leaves is
// SPC-2's table. Under Registrants Only and All Registrants a registered nexus
// is never in conflict.
type allowance uint8

const (
	// allowanceUnsaid is no row of the command set.
	allowanceUnsaid allowance = iota
	// underAny reservation.
	underAny
	// underPersistent reservations of all types, but not under RESERVE.
	underPersistent
	// underWriteExclusive types alone: what reads.
	underWriteExclusive
	// underNone: what changes the medium or the unit.
	underNone
	// underPersistentToStart: under any persistent reservation in order to
	// start the unit, under none to stop it.
	underPersistentToStart
	// byOwnRules: the command itself looks at the reservations.
	byOwnRules
)

// conflicts says whether a persistent reservation of another nexus is in the
// command's way.
func (a allowance) conflicts(t reservationType, cdb *[16]byte) bool {
	switch a {
	case underWriteExclusive:
		return t.barsReading()
	case underNone:
		return true
	case underPersistentToStart:
		return cdb[4]&startBit == 0 || cdb[4]>>4 != startValid
	}
	return false
}

// conflictsWithReserve is conflicts for RESERVE.
func (a allowance) conflictsWithReserve() bool {
	return a != allowanceUnsaid && a != underAny && a != byOwnRules
}

// conflict says whether a reservation keeps a nexus from a command. It is asked
// for every command, and takes no lock.
func (s *reservations) conflict(l *itl, op *operation, cdb *[16]byte) bool {
	if s.reserver != nil {
		return s.reserver != l && op.allowed.conflictsWithReserve()
	}
	if s.kind == noReservation || !op.allowed.conflicts(s.kind, cdb) {
		return false
	}
	i := s.find(l.id())
	return !s.holds(i) && (i < 0 || !s.kind.sharedByRegistrants())
}
