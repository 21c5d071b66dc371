package scsi

import "context"

// thirdParty is the 3RDPTY bit of byte 1 of RESERVE(10) and RELEASE(10).
const thirdParty = 4

// decodeReserve6 is RESERVE(6), SPC-2 section 7.22.
func decodeReserve6(request) Command { return Command{Kind: Exec} }

// decodeReserve10 is RESERVE(10), SPC-2 section 7.21. Nobody can be reserved
// for but oneself.
func decodeReserve10(r request) Command {
	if r.cdb[1]&(1<<thirdParty) != 0 {
		return r.fail(invalidField(1, thirdParty))
	}
	return Command{Kind: Exec}
}

// executeReserve follows SPC-4 section 5.13.3, the exceptions to SPC-2 that
// CRH announces: who is let through by a persistent reservation gets GOOD, and
// nothing changes; any other registration is a conflict.
func executeReserve(_ context.Context, c Command, _ []byte) ([]byte, Status) {
	u := c.itl.unit
	u.reserveMu.Lock()
	defer u.reserveMu.Unlock()
	s := u.reservations.Load()
	switch {
	case len(s.registrations) > 0:
		return nil, s.compatible(c.itl)
	case s.reserver == c.itl:
		return nil, StatusGood
	case s.reserver != nil:
		return nil, StatusReservationConflict
	}
	next := s.copy()
	next.reserver = c.itl
	u.reservations.Store(&next)
	return nil, StatusGood
}

// executeRelease is RELEASE(6) and RELEASE(10), SPC-2 sections 7.17 and 7.16. It
// is no error to release what one does not have.
func executeRelease(_ context.Context, c Command, _ []byte) ([]byte, Status) {
	u := c.itl.unit
	if s := u.reservations.Load(); len(s.registrations) > 0 {
		return nil, s.compatible(c.itl)
	}
	u.dropReserver(c.itl)
	return nil, StatusGood
}

// compatible is the status of RESERVE and RELEASE where there are registrations.
func (s *reservations) compatible(l *itl) Status {
	i := s.find(l.id())
	if s.holds(i) || i >= 0 && s.kind.sharedByRegistrants() {
		return StatusGood
	}
	return StatusReservationConflict
}
