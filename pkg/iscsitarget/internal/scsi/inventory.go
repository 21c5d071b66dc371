package scsi

import (
	"errors"
	"fmt"
	"maps"
	"sync"
)

// Inventory is a SCSI target device's logical units (SAM-5 section 4.5). All
// methods may be called concurrently.
type Inventory struct {
	// mu is held while a nexus's stage is made durable: Add, Remove, Attach
	// and Detach wait for each other, Decode and Lookup for none of them.
	mu      sync.Mutex
	nexuses map[*Nexus]struct{}

	unitsMu sync.RWMutex
	units   map[uint16]*Unit
}

// NewInventory returns an inventory without units.
func NewInventory() *Inventory {
	return &Inventory{nexuses: map[*Nexus]struct{}{}, units: map[uint16]*Unit{}}
}

// Add makes a unit reachable as lun and establishes REPORTED LUNS DATA HAS
// CHANGED for the attached nexuses. It fails where the number is taken or above
// 16383, or where an attached nexus's stage cannot be made durable.
func (v *Inventory) Add(lun uint16, u *Unit) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if lun > maxLUN {
		return fmt.Errorf("LUN %d: numbers end at %d", lun, maxLUN)
	}
	if v.unit(lun) != nil {
		return fmt.Errorf("LUN %d is taken: remove the unit first or choose another number", lun)
	}
	joined := map[*Nexus]*itl{}
	for n := range v.nexuses {
		l, err := u.attach(n)
		if err != nil {
			detachAll(maps.Values(joined))
			return fmt.Errorf("LUN %d: %w", lun, err)
		}
		joined[n] = l
	}
	v.setUnit(lun, u)
	for n, l := range joined {
		n.change(func(luns map[uint16]*itl) { luns[lun] = l })
	}
	v.lunsChanged()
	return nil
}

// Remove takes the unit at lun away and returns it, nil where there is none.
// Commands that were decoded before still finish; the caller waits for them
// before it closes the unit.
func (v *Inventory) Remove(lun uint16) *Unit {
	v.mu.Lock()
	defer v.mu.Unlock()
	u := v.unit(lun)
	if u == nil {
		return nil
	}
	v.setUnit(lun, nil)
	for n := range v.nexuses {
		u.detach((*n.luns.Load())[lun])
		n.change(func(luns map[uint16]*itl) { delete(luns, lun) })
	}
	v.lunsChanged()
	return u
}

// Lookup returns the unit behind a LUN of eight bytes, nil where there is none.
func (v *Inventory) Lookup(lun [8]byte) *Unit {
	number, ok := parseLUN(lun)
	if !ok {
		return nil
	}
	return v.unit(number)
}

// Attach joins an initiator port to the units. It may block: where writes are
// volatile the nexus's stage is made durable first, and an error says that it
// could not be.
func (v *Inventory) Attach(c NexusConfig) (*Nexus, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := &Nexus{config: c, inventory: v}
	luns := map[uint16]*itl{}
	for lun, u := range v.snapshot() {
		l, err := u.attach(n)
		if err != nil {
			detachAll(maps.Values(luns))
			return nil, fmt.Errorf("LUN %d: attach %s: %w", lun, c.InitiatorPort, err)
		}
		luns[lun] = l
	}
	n.luns.Store(&luns)
	v.nexuses[n] = struct{}{}
	return n, nil
}

// Forget ends what the units remember of an initiator's stages, after a Sync of
// what may still be volatile. An error means that acknowledged writes of it may
// be lost, or that the record could not be changed; Forget may be called again
// and then reports what is still wrong. The initiator's nexuses must be
// detached before; a stage of an attached one is kept.
func (v *Inventory) Forget(initiator string) error {
	var errs []error
	for lun, u := range v.snapshot() {
		if err := u.durability.forget(initiator); err != nil {
			errs = append(errs, fmt.Errorf("LUN %d: forget %s: %w", lun, initiator, err))
		}
	}
	return errors.Join(errs...)
}

// Purge ends the registrations that an initiator's ports have with the units,
// and the persistent reservations that they hold: also those that survive a
// power loss, durably. An error means that some may be left; Purge may be called
// again. The initiator's nexuses must be detached before.
func (v *Inventory) Purge(initiator string) error {
	var errs []error
	for lun, u := range v.snapshot() {
		if err := u.purge(initiator); err != nil {
			errs = append(errs, fmt.Errorf("LUN %d: purge %s: %w", lun, initiator, err))
		}
	}
	return errors.Join(errs...)
}

func (v *Inventory) detach(n *Nexus) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, attached := v.nexuses[n]; !attached {
		return
	}
	delete(v.nexuses, n)
	detachAll(maps.Values(*n.luns.Load()))
	n.luns.Store(&map[uint16]*itl{})
}

// lunsChanged establishes the attention on every I_T_L nexus.
func (v *Inventory) lunsChanged() {
	for n := range v.nexuses {
		for _, l := range *n.luns.Load() {
			l.attentions.establish(attentionReportedLUNs)
		}
	}
}

func (v *Inventory) unit(lun uint16) *Unit {
	v.unitsMu.RLock()
	defer v.unitsMu.RUnlock()
	return v.units[lun]
}

func (v *Inventory) setUnit(lun uint16, u *Unit) {
	v.unitsMu.Lock()
	defer v.unitsMu.Unlock()
	if u == nil {
		delete(v.units, lun)
		return
	}
	v.units[lun] = u
}

func (v *Inventory) snapshot() map[uint16]*Unit {
	v.unitsMu.RLock()
	defer v.unitsMu.RUnlock()
	return maps.Clone(v.units)
}

// change replaces the nexus's map; the inventory's lock is held.
func (n *Nexus) change(edit func(map[uint16]*itl)) {
	luns := maps.Clone(*n.luns.Load())
	edit(luns)
	n.luns.Store(&luns)
}
