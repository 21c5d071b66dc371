package scsi

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// unitState is what a unit remembers across restarts, kept beside the medium.
type unitState struct {
	// Mode are the saved values of the mode pages, nil where none are.
	Mode *settings `json:"mode,omitempty"`
	// Chore is under way, or failed; nil where none is.
	Chore *chore `json:"chore,omitempty"`
	// Reservations are those with APTPL, nil where there are none.
	Reservations *savedReservations `json:"reservations,omitempty"`
}

// loadState reads what the unit kept. A record that cannot be read keeps the
// unit from starting: what it protected must not go unprotected.
func (u *Unit) loadState() error {
	u.reservations.Store(&reservations{})
	keeper, ok := u.device.(blockdev.StateKeeper)
	if !ok {
		return nil
	}
	u.keeper = keeper
	text, err := keeper.State()
	if err != nil {
		return fmt.Errorf("read the logical unit's state: %w", err)
	}
	if len(text) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&u.state); err != nil {
		return u.damaged(err)
	}
	restored, err := u.state.Reservations.restored()
	if err != nil {
		return u.damaged(err)
	}
	u.reservations.Store(restored)
	return nil
}

// damaged says what to do where the state is not one that a unit of this
// version has kept.
func (u *Unit) damaged(err error) error {
	where := "the logical unit's state"
	if l, ok := u.keeper.(blockdev.StateLocator); ok {
		where = l.StateLocation()
	}
	return fmt.Errorf("%s cannot be understood: %w: %w; put it back from a backup, or move it away if the reservations and mode pages in it may be forgotten",
		where, blockdev.ErrCorrupt, err)
}

// keep changes the state durably: when it fails the old one holds.
func (u *Unit) keep(change func(*unitState)) error {
	u.stateMu.Lock()
	defer u.stateMu.Unlock()
	next := u.state
	change(&next)
	text, err := json.Marshal(next)
	if string(text) == "{}" {
		text = nil // nothing to remember: that needs no space
	}
	if err == nil {
		err = u.keeper.SetState(text)
	}
	if err == nil {
		u.state = next
	}
	return err
}

// saves says that the unit can keep a state.
func (u *Unit) saves() bool { return u.keeper != nil }

func (u *Unit) defaultSettings() settings { return settings{WriteCache: u.config.WriteCache} }

// savedSettings are what the mode pages are after a reset.
func (u *Unit) savedSettings() settings {
	u.stateMu.Lock()
	defer u.stateMu.Unlock()
	if u.state.Mode == nil {
		return u.defaultSettings()
	}
	return *u.state.Mode
}

func (u *Unit) saveSettings(s settings) error {
	return u.keep(func(state *unitState) { state.Mode = &s })
}
