package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// Expand grows a volume; see [Service]. The order is: record and device are
// larger on stable storage, then the initiators are told.
func (m *Manager) Expand(ctx context.Context, id string, r SizeRange) (int64, error) {
	e, err := m.living(ctx, id)
	if err != nil {
		return 0, err
	}
	return run(ctx, m.ops, e.uuid, func() (int64, error) {
		if e, err = m.living(ctx, id); err != nil {
			return 0, err
		}
		return m.expand(ctx, e, r)
	})
}

func (m *Manager) expand(ctx context.Context, e *entry, r SizeRange) (int64, error) {
	if r.Limit != 0 && e.size > r.Limit {
		return 0, fmt.Errorf("%w: volume %s has %d bytes, over the limit of %d, and cannot shrink",
			ErrOutOfRange, m.id(e), e.size, r.Limit)
	}
	if e.size >= r.Required {
		return e.size, ErrNoChange
	}
	size, err := r.resolve(sizeUnit)
	if err != nil {
		return 0, fmt.Errorf("volume %s: %w", m.id(e), err)
	}
	release, err := m.allocate(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	if err := m.checkGrowth(ctx, size-e.size); err != nil {
		return 0, err
	}
	return size, m.resize(ctx, e, size)
}

// checkGrowth is checkRoom for a volume that is there already: the CSI
// specification knows only OUT_OF_RANGE for it.
func (m *Manager) checkGrowth(ctx context.Context, growth int64) error {
	left, err := m.available(ctx)
	if err != nil {
		return err
	}
	if growth > left {
		return fmt.Errorf("%w: %w: %d bytes more asked for, %d left", ErrOutOfRange, ErrNoRoom, growth, left)
	}
	return nil
}

// resize grows the volume and tells the initiators, also where the pool
// reports an error but the volume has grown.
func (m *Manager) resize(ctx context.Context, e *entry, size int64) error {
	before := e.size
	err := m.pool.Resize(ctx, e.uuid, size)
	if err == nil {
		m.adopt(e, size, e.meta)
	} else {
		m.reload(ctx, e)
	}
	if e.size != before {
		m.exporter.CapacityChanged(TargetName(e.uuid))
	}
	if errors.Is(err, blockdev.ErrNoSpace) {
		return fmt.Errorf("%w: grow volume %s: %w", ErrOutOfRange, m.id(e), err)
	}
	if err != nil {
		return fmt.Errorf("grow volume %s: %w", m.id(e), err)
	}
	return nil
}
