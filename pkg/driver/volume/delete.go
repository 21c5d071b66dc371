package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// Delete destroys a volume; see [Service]. The order is: the intent is
// recorded, the export ends, the device closes, the pool deletes. A crash after
// the first step is finished by the next Open, one before it changes nothing.
// Where a full pool has no room for the intent it goes without: deleting is what
// makes room, and a crash in between leaves a volume that can be deleted again.
func (m *Manager) Delete(ctx context.Context, id string) error {
	e, err := m.lookup(ctx, id)
	if errors.Is(err, blockdev.ErrCorrupt) {
		return m.deleteRefused(ctx, id, err)
	}
	if err != nil {
		return err
	}
	return runError(ctx, m.ops, e.uuid, func() error {
		if e, err = m.lookup(ctx, id); err != nil { // gone while we got the key
			return err
		}
		return m.delete(ctx, e)
	})
}

// deleteRefused is for a volume that is not served, because what the pool has of
// it cannot be relied on. The pool says how it can be deleted, and does it once
// that was done; one whose record is merely not ours to trust stays.
func (m *Manager) deleteRefused(ctx context.Context, id string, refusal error) error {
	uuid, err := parseID(m.pool.ID(), id)
	if err != nil {
		return err
	}
	if m.refused[uuid] != nil {
		return fmt.Errorf("%w; it is not deleted unseen: mend its record, or move its directory out of the pool, and restart the controller", refusal)
	}
	return runError(ctx, m.ops, uuid, func() error { return m.pool.Delete(ctx, uuid) })
}

func (m *Manager) delete(ctx context.Context, e *entry) error {
	if len(e.meta.Attachments) > 0 {
		return fmt.Errorf("%w: %s is attached to %s; detach it first", ErrInUse, m.id(e), nodeIDs(e.meta.Attachments))
	}
	if !e.meta.Deleting {
		err := m.update(ctx, e, func(meta *meta) { meta.Deleting = true })
		if err != nil && !errors.Is(err, blockdev.ErrNoSpace) {
			return err
		}
	}
	return m.destroy(ctx, e)
}

// destroy carries out a recorded intent to delete; it may be called again.
func (m *Manager) destroy(ctx context.Context, e *entry) error {
	// A flush that failed has ended the export all the same, and what it lost
	// was to be destroyed.
	if err := m.exporter.Unexport(ctx, TargetName(e.uuid)); err != nil && !errors.Is(err, blockdev.ErrLostWrites) {
		return fmt.Errorf("end the export of volume %s: %w", m.id(e), err)
	}
	if err := e.closeDevice(); err != nil {
		// The data is to be destroyed: what could not be written is no loss.
		m.log.Error(err, "Device closed with an error", "volume", m.id(e))
	}
	if err := m.pool.Delete(ctx, e.uuid); err != nil && !errors.Is(err, blockdev.ErrNotFound) {
		return fmt.Errorf("delete volume %s: %w", m.id(e), err)
	}
	m.remove(e)
	return nil
}
