package scsi

// decodeRequestSense is REQUEST SENSE, SPC-4 section 6.39: it gives, and
// clears, a pending unit attention; else the state of the unit.
func decodeRequestSense(r request) Command {
	s := r.currentSense()
	s.descriptor = r.cdb[1]&1 != 0
	return r.data(s.append(nil), uint64(r.cdb[4]))
}

func (r request) currentSense() sense {
	if r.itl == nil {
		return sense{key: illegalRequest, code: ascLogicalUnitNotSupported}
	}
	if a, pending := r.itl.attentions.take(); pending {
		return r.itl.unit.attentionStatus(a).sense
	}
	u := r.itl.unit
	if st := u.admitChore(); st.code != Good {
		return st.sense
	}
	if code := powerCodes[u.power.Load()]; code != 0 {
		return sense{key: noSense, code: code}
	}
	return r.itl.admit(needsReady).sense
}
