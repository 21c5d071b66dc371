package scsi

import (
	"errors"
	"fmt"
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// savedReservations is what persists through power loss (SPC-4 section 5.13.5).
type savedReservations struct {
	Registrations []registration  `json:"registrations"`
	Type          reservationType `json:"type,omitempty"`
}

// saved is what the unit must remember, nil for nothing.
func (s *reservations) saved() *savedReservations {
	if !s.persist || len(s.registrations) == 0 {
		return nil
	}
	return &savedReservations{s.registrations, s.kind}
}

func (s *savedReservations) equal(other *savedReservations) bool {
	if s == nil || other == nil {
		return s == other
	}
	return s.Type == other.Type && slices.Equal(s.Registrations, other.Registrations)
}

// restored are the reservations that a unit starts with.
func (s *savedReservations) restored() (*reservations, error) {
	if s == nil {
		return &reservations{}, nil
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	return &reservations{registrations: s.Registrations, kind: s.Type, persist: true}, nil
}

// validate refuses what no unit has written.
func (s *savedReservations) validate() error {
	if n := len(s.Registrations); n == 0 || n > maxRegistrations {
		return fmt.Errorf("%d registrations", n)
	}
	holders := 0
	for i, r := range s.Registrations {
		if r.Initiator == "" || r.Key == 0 {
			return errors.New("a registration without an initiator port or a key")
		}
		if slices.ContainsFunc(s.Registrations[:i], func(other registration) bool { return other.is(r.nexusID) }) {
			return fmt.Errorf("%.300q is registered twice", r.Initiator)
		}
		if r.Holder {
			holders++
		}
	}
	want := 0
	if s.Type != noReservation && !s.Type.heldByAll() {
		want = 1
	}
	if s.Type != noReservation && !s.Type.valid() || holders != want {
		return fmt.Errorf("a reservation of type %d with %d holders", s.Type, holders)
	}
	return nil
}

// commitReservations makes reservations the unit's: durably first, where they
// persist or did. reserveMu is held.
func (u *Unit) commitReservations(next *reservations) error {
	now, saved := u.reservations.Load(), next.saved()
	if u.saves() && (u.reserveUnsure || !saved.equal(now.saved())) {
		// A record that could not be written may be there all the same.
		u.reserveUnsure = true
		if err := u.keep(func(state *unitState) { state.Reservations = saved }); err != nil {
			return fmt.Errorf("keep reservations: %w", err)
		}
		u.reserveUnsure = false
	}
	u.reservations.Store(next)
	return nil
}

// notice is a unit attention for the nexus of a registration.
type notice struct {
	to registration
	attention
}

// notify establishes the unit attentions where the nexus is attached.
func (u *Unit) notify(notices []notice) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for l := range u.itls {
		for _, n := range notices {
			if n.to.is(l.id()) {
				l.attentions.establish(n.attention)
			}
		}
	}
}

// purge ends the registrations of an initiator, durably, and the reservation
// where it held it.
func (u *Unit) purge(initiator string) error {
	u.reserveMu.Lock()
	defer u.reserveMu.Unlock()
	w := reserving{next: u.reservations.Load().copy()}
	before := len(w.next.registrations)
	for i := before - 1; i >= 0; i-- {
		if w.next.registrations[i].node() == initiator {
			w.unregister(i)
		}
	}
	if len(w.next.registrations) == before && !u.reserveUnsure {
		return nil
	}
	if err := u.commitReservations(&w.next); err != nil {
		return err
	}
	u.notify(w.notices)
	return nil
}

// dropReserver ends what a nexus has by RESERVE; nil stands for any nexus.
func (u *Unit) dropReserver(l *itl) {
	u.reserveMu.Lock()
	defer u.reserveMu.Unlock()
	s := u.reservations.Load()
	if s.reserver == nil || l != nil && s.reserver != l {
		return
	}
	next := s.copy()
	next.reserver = nil
	u.reservations.Store(&next)
}

// losePower leaves of the reservations what a new process would begin with.
func (u *Unit) losePower() {
	u.reserveMu.Lock()
	defer u.reserveMu.Unlock()
	next := reservations{}
	if s := u.reservations.Load(); s.persist {
		next = s.copy()
		next.generation, next.reserver = 0, nil
	}
	u.reservations.Store(&next)
}

// reservationsNotKept is the status where reservations could not be made
// durable.
func (u *Unit) reservationsNotKept(err error) Status {
	u.config.Logger.Error("Cannot keep reservations", "err", err)
	if errors.Is(err, blockdev.ErrNoSpace) {
		return statusNoRegistrations
	}
	return SenseInternalTargetFailure
}
