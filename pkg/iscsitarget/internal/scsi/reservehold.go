package scsi

// reserve is the service action RESERVE, SPC-4 section 5.13.9.
func (w *reserving) reserve() Status {
	if !w.authorised() {
		return StatusReservationConflict
	}
	if st := w.checkType(); st.code != Good {
		return st
	}
	i := w.mine()
	switch {
	case w.next.kind == noReservation:
		w.next.hold(i, w.kind)
	case !w.next.holds(i) || w.next.kind != w.kind:
		return StatusReservationConflict
	}
	return StatusGood
}

// release is the service action RELEASE, SPC-4 section 5.13.11.2.2: GOOD, and
// nothing else, for who holds no reservation.
func (w *reserving) release() Status {
	switch {
	case !w.authorised():
		return StatusReservationConflict
	case !w.next.holds(w.mine()):
		return StatusGood
	case w.scope != 0 || w.kind != w.next.kind:
		return check(illegalRequest, ascInvalidRelease)
	}
	if w.next.kind.sharedByRegistrants() {
		w.tellAll(attentionReservationsReleased)
	}
	w.next.release()
	return StatusGood
}

// clear is the service action CLEAR, SPC-4 section 5.13.11.2.6.
func (w *reserving) clear() Status {
	if !w.authorised() {
		return StatusReservationConflict
	}
	w.tellAll(attentionReservationsPreempted)
	w.next.release()
	w.next.registrations = nil
	w.next.generation++
	return StatusGood
}

// preempt is the service action PREEMPT, and what PREEMPT AND ABORT shares with
// it, SPC-4 sections 5.13.11.2.3 to 5.13.11.2.5.
func (w *reserving) preempt() Status {
	key := w.list.serviceKey
	switch {
	case !w.authorised():
		return StatusReservationConflict
	case w.namesHolder(key):
		return w.takeOver(key)
	case key == 0:
		return invalidParameter(8, 7)
	case !w.preemptAll(func(r registration) bool { return r.Key == key }):
		return StatusReservationConflict
	}
	if len(w.next.registrations) == 0 { // all of All Registrants are gone
		w.next.release()
	}
	w.next.generation++
	return StatusGood
}

// namesHolder says that a key stands for who holds the persistent reservation:
// 0 for all registrants.
func (w *reserving) namesHolder(key uint64) bool {
	switch {
	case w.next.kind == noReservation:
		return false
	case w.next.kind.heldByAll():
		return key == 0
	}
	return key == w.next.holderKey()
}

// takeOver gives the reservation to the nexus that asks, which stays registered
// whatever its key. Those that stay beside it are told where what they may do
// has changed.
func (w *reserving) takeOver(key uint64) Status {
	if st := w.checkType(); st.code != Good {
		return st
	}
	all, changed := w.next.kind.heldByAll(), w.next.kind != w.kind
	w.preemptAll(func(r registration) bool { return !r.is(w.from) && (all || r.Key == key) })
	if changed {
		w.tellAll(attentionReservationsReleased)
	}
	w.next.hold(w.mine(), w.kind)
	w.next.generation++
	return StatusGood
}

// preemptAll takes registrations away; false means that none matched.
func (w *reserving) preemptAll(match func(registration) bool) (found bool) {
	for i := len(w.next.registrations) - 1; i >= 0; i-- {
		r := w.next.registrations[i]
		if !match(r) {
			continue
		}
		found = true
		w.removed = append(w.removed, r)
		w.tell(r, attentionRegistrationsPreempted)
		if !r.is(w.from) {
			w.preempted = append(w.preempted, r.Initiator)
		}
		w.remove(i)
	}
	return found
}
