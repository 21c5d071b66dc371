package volume

import (
	"context"
	"fmt"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// capacityKey is the operation of reading the pool's figures: one at a time, so
// that those who look at a pool whose disk is stuck do not pile up.
const capacityKey = "capacity of the pool"

// Capacity reads the pool's figures, and how many bytes a new volume may have
// now. While another call of it has not returned it is ErrPending.
func (m *Manager) Capacity(ctx context.Context) (c blockdev.Capacity, available int64, err error) {
	c, err = run(ctx, m.ops, capacityKey, func() (blockdev.Capacity, error) { return m.pool.Capacity(ctx) })
	if err != nil {
		return blockdev.Capacity{}, 0, fmt.Errorf("capacity of the pool: %w", err)
	}
	return c, room(c, m.ratio), nil
}

// Refused is how many volumes are in the pool and not served, because their
// records cannot be relied on.
func (m *Manager) Refused() int { return len(m.refused) }
