package scsi

// register is the service action REGISTER, SPC-4 section 5.13.7: a nexus that is
// not registered gives the key 0.
func (w *reserving) register() Status {
	var key uint64
	if i := w.mine(); i >= 0 {
		key = w.next.registrations[i].Key
	}
	if w.list.key != key {
		return StatusReservationConflict
	}
	if w.list.specifyPorts && (key != 0 || w.list.serviceKey == 0) {
		return invalidParameter(20, 3)
	}
	return w.registerIgnoringKey()
}

// registerIgnoringKey is REGISTER AND IGNORE EXISTING KEY, SPC-4 section 5.13.7.
func (w *reserving) registerIgnoringKey() Status {
	i := w.mine()
	switch {
	case w.list.persist && !w.keeps:
		return invalidParameter(20, 0)
	case i < 0 && w.list.serviceKey == 0:
		return StatusGood
	case w.list.serviceKey == 0:
		w.unregister(i)
	case i >= 0:
		w.next.registrations[i].Key = w.list.serviceKey
	default:
		if st := w.registerNew(); st.code != Good {
			return st
		}
	}
	w.next.persist = w.list.persist
	w.next.generation++
	return StatusGood
}

// registerNew registers the nexus and those that SPEC_I_PT names: all of them
// or none. Some of them may be the same.
func (w *reserving) registerNew() Status {
	ids := []nexusID{w.from}
	for _, id := range w.list.ports {
		if id.port == "" {
			ids = append(ids, w.attached(id.node)...)
			continue
		}
		ids = append(ids, nexusID{id.port, w.from.TargetPort})
	}
	before := len(w.next.registrations)
	for _, id := range ids {
		switch i := w.next.find(id); {
		case i >= 0 && i < before:
			return StatusReservationConflict
		case i >= 0:
			continue
		}
		if st := w.add(registration{nexusID: id, Key: w.list.serviceKey, AllTargetPorts: w.list.allTargetPorts}); st.code != Good {
			return st
		}
	}
	return StatusGood
}

func (w *reserving) add(r registration) Status {
	if len(w.next.registrations) >= maxRegistrations {
		return statusNoRegistrations
	}
	w.next.registrations = append(w.next.registrations, r)
	return StatusGood
}

// unregister takes a registration away, and with it a reservation that nobody
// holds any more (SPC-4 section 5.13.11.1.2). Registrants who had a part in it
// are told.
func (w *reserving) unregister(i int) {
	held := w.next.holds(i)
	w.remove(i)
	if !held || w.next.kind.heldByAll() && len(w.next.registrations) > 0 {
		return
	}
	if w.next.kind.sharedByRegistrants() {
		w.tellAll(attentionReservationsReleased)
	}
	w.next.release()
}

// registerAndMove is REGISTER AND MOVE, SPC-4 section 5.13.8. The unit is known
// by the target port that the command came through, and by no other.
func (w *reserving) registerAndMove() Status {
	switch {
	case !w.authorised():
		return StatusReservationConflict
	case w.next.kind == noReservation:
		return invalidField(1, 4)
	case w.next.kind.heldByAll() || !w.next.holds(w.mine()):
		return StatusReservationConflict
	case w.list.serviceKey == 0:
		return invalidParameter(8, 7)
	case w.list.persist && !w.keeps:
		return invalidParameter(17, 0)
	case w.list.targetPort != w.from.TargetPort:
		return invalidParameter(18, 7)
	}
	to := nexusID{w.list.ports[0].port, w.list.targetPort}
	if to == w.from {
		return invalidParameter(reserveOutBytes, 7)
	}
	if i := w.next.find(to); i >= 0 {
		w.next.registrations[i].Key = w.list.serviceKey
	} else if st := w.add(registration{nexusID: to, Key: w.list.serviceKey}); st.code != Good {
		return st
	}
	w.next.hold(w.next.find(to), w.next.kind)
	if w.list.unregister {
		w.remove(w.mine())
	}
	w.next.persist = w.list.persist
	w.next.generation++
	return StatusGood
}
