package scsi

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
)

// Service actions of PERSISTENT RESERVE OUT (SPC-4 section 6.16.2).
const (
	actionRegister        = 0x00
	actionReserve         = 0x01
	actionRelease         = 0x02
	actionClear           = 0x03
	actionPreempt         = 0x04
	actionPreemptAndAbort = 0x05
	actionRegisterIgnore  = 0x06 // REGISTER AND IGNORE EXISTING KEY
	actionRegisterMove    = 0x07 // REGISTER AND MOVE
)

// reserveOutBytes is the parameter list without TransportIDs.
const reserveOutBytes = 24

// decodeReserveOut is PERSISTENT RESERVE OUT, SPC-4 section 6.16.
func decodeReserveOut(r request) Command {
	action, length := r.cdb[1]&0x1F, bigEndian(r.cdb[5:9])
	takesPorts := action == actionRegister || action == actionRegisterMove
	if length < reserveOutBytes || length > reserveOutBytes && !takesPorts || length > MaxParameterLength {
		return r.fail(check(illegalRequest, ascParameterListLength))
	}
	return Command{Kind: Exec, Dir: DataOut, Length: int64(length)}
}

// executeReserveOut answers when the commands that PREEMPT AND ABORT aborts
// have ended, whose ACA conditions it clears (SPC-4 section 5.13.11.2.5). The nexuses concerned are told afterwards: a command that took the
// unit attention before would be aborted with it.
func executeReserveOut(ctx context.Context, c Command, params []byte) ([]byte, Status) {
	action := c.cdb[1] & 0x1F
	list, st := parseReserveOut(action, params)
	if st.code != Good {
		return nil, st
	}
	u := c.itl.unit
	w, st := u.reserveOut(&c, list)
	if st.code != Good {
		return nil, st
	}
	if action == actionPreemptAndAbort && len(w.preempted) > 0 && u.onPreempt != nil {
		u.onPreempt(ctx, w.preempted)
	}
	if action == actionPreemptAndAbort {
		u.clearACA(func(l *itl) bool {
			return slices.ContainsFunc(w.removed, func(r registration) bool { return r.is(l.id()) })
		})
	}
	u.notify(w.notices)
	return nil, StatusGood
}

// reserveOutList is a parameter list of PERSISTENT RESERVE OUT, of either form
// (SPC-4 sections 6.16.3 and 6.16.4).
type reserveOutList struct {
	key, serviceKey uint64
	specifyPorts    bool // SPEC_I_PT
	allTargetPorts  bool // ALL_TG_PT
	persist         bool // APTPL
	unregister      bool // UNREG
	targetPort      uint16
	ports           []transportID
}

func parseReserveOut(action byte, b []byte) (reserveOutList, Status) {
	if len(b) < reserveOutBytes {
		return reserveOutList{}, check(illegalRequest, ascParameterListLength)
	}
	list := reserveOutList{key: binary.BigEndian.Uint64(b), serviceKey: binary.BigEndian.Uint64(b[8:])}
	if action == actionRegisterMove {
		return list, list.parseMove(b)
	}
	list.specifyPorts, list.allTargetPorts, list.persist = b[20]&(1<<3) != 0, b[20]&(1<<2) != 0, b[20]&1 != 0
	switch {
	case list.specifyPorts && action != actionRegister:
		return list, invalidParameter(20, 3)
	case list.specifyPorts && len(b) < reserveOutBytes+4, !list.specifyPorts && len(b) != reserveOutBytes:
		return list, check(illegalRequest, ascParameterListLength)
	case list.specifyPorts:
		return list, list.parsePorts(b, reserveOutBytes)
	}
	return list, StatusGood
}

func (list *reserveOutList) parseMove(b []byte) Status {
	list.unregister, list.persist = b[17]&(1<<1) != 0, b[17]&1 != 0
	list.targetPort = binary.BigEndian.Uint16(b[18:])
	if st := list.parsePorts(b, reserveOutBytes-4); st.code != Good {
		return st
	}
	if len(list.ports) != 1 || list.ports[0].port == "" {
		return invalidParameter(reserveOutBytes, 7)
	}
	return StatusGood
}

// parsePorts reads the TransportIDs behind their length at an offset.
func (list *reserveOutList) parsePorts(b []byte, at int) Status {
	left := b[at+4:]
	if uint64(binary.BigEndian.Uint32(b[at:])) != uint64(len(left)) {
		return check(illegalRequest, ascParameterListLength)
	}
	for len(left) > 0 {
		id, rest, ok := parseTransportID(left)
		if !ok {
			return invalidParameter(len(b)-len(left), 7)
		}
		list.ports, left = append(list.ports, id), rest
	}
	return StatusGood
}

// reserving is a PERSISTENT RESERVE OUT command under way.
type reserving struct {
	from  nexusID
	scope byte
	kind  reservationType
	list  reserveOutList
	// keeps: APTPL can be kept.
	keeps bool
	// attached returns the nexuses that an initiator has now.
	attached func(node string) []nexusID

	// next is what the reservations will be; notices and preempted are for
	// when they are.
	next      reservations
	notices   []notice
	preempted []string       // initiator ports
	removed   []registration // that were preempted, the own one among them
}

// reserveActions are by service action. An action that does not return GOOD
// changes nothing: what it made of next is dropped.
var reserveActions = [...]func(*reserving) Status{
	actionRegister:        (*reserving).register,
	actionReserve:         (*reserving).reserve,
	actionRelease:         (*reserving).release,
	actionClear:           (*reserving).clear,
	actionPreempt:         (*reserving).preempt,
	actionPreemptAndAbort: (*reserving).preempt,
	actionRegisterIgnore:  (*reserving).registerIgnoringKey,
	actionRegisterMove:    (*reserving).registerAndMove,
}

// reserveOut performs a service action: what must persist is on stable storage
// before the change is there for all to see.
func (u *Unit) reserveOut(c *Command, list reserveOutList) (*reserving, Status) {
	u.reserveMu.Lock()
	defer u.reserveMu.Unlock()
	now := u.reservations.Load()
	if now.reserver != nil { // SPC-2 section 5.5.1: whoever it is
		return nil, StatusReservationConflict
	}
	w := &reserving{
		from: c.itl.id(), scope: c.cdb[2] >> 4, kind: reservationType(c.cdb[2] & 0x0F), list: list,
		keeps: u.saves(), attached: u.attachedOf, next: now.copy(),
	}
	if st := reserveActions[c.cdb[1]&0x1F](w); st.code != Good {
		return nil, st
	}
	if err := u.commitReservations(&w.next); err != nil {
		return nil, u.reservationsNotKept(err)
	}
	return w, StatusGood
}

// attachedOf returns the nexuses of an initiator's ports.
func (u *Unit) attachedOf(node string) (ids []nexusID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for l := range u.itls {
		if id := l.id(); strings.HasPrefix(id.Initiator, node+portSeparator) {
			ids = append(ids, id)
		}
	}
	return ids
}

// mine is the index of the registration of the nexus that asks.
func (w *reserving) mine() int { return w.next.find(w.from) }

// authorised: the nexus is registered, and gave its key.
func (w *reserving) authorised() bool {
	i := w.mine()
	return i >= 0 && w.next.registrations[i].Key == w.list.key
}

// checkType checks SCOPE and TYPE, where the action makes use of them.
func (w *reserving) checkType() Status {
	switch {
	case w.scope != 0: // LU_SCOPE
		return invalidField(2, 7)
	case !w.kind.valid():
		return invalidField(2, 3)
	}
	return StatusGood
}

// tell has a unit attention established for the nexus of a registration, unless
// it is the one that asks.
func (w *reserving) tell(to registration, a attention) {
	if !to.is(w.from) {
		w.notices = append(w.notices, notice{to, a})
	}
}

func (w *reserving) tellAll(a attention) {
	for _, r := range w.next.registrations {
		w.tell(r, a)
	}
}

// remove takes a registration away, and leaves the reservation alone.
func (w *reserving) remove(i int) {
	w.next.registrations = append(w.next.registrations[:i], w.next.registrations[i+1:]...)
}
