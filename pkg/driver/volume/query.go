package volume

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Get returns a volume by its id; see [Service].
func (m *Manager) Get(ctx context.Context, id string) (Volume, error) {
	e, err := m.living(ctx, id)
	if err != nil {
		return Volume{}, err
	}
	return m.describe(e), nil
}

// Find returns a volume by its name; see [Service].
func (m *Manager) Find(ctx context.Context, name string) (Volume, error) {
	m.mu.Lock()
	uuids := slices.Clone(m.names[name])
	m.mu.Unlock()
	switch len(uuids) {
	case 0:
		return Volume{}, fmt.Errorf("%w: no volume is named %q", ErrNotFound, name)
	case 1:
		return m.Get(ctx, ID(m.pool.ID(), uuids[0]))
	}
	return Volume{}, ambiguous(name, uuids)
}

// List returns all volumes; see [Service]. One that is being deleted is among
// them until it is gone.
func (m *Manager) List(context.Context) ([]Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Volume, 0, len(m.volumes))
	for _, e := range m.volumes {
		all = append(all, m.describeLocked(e))
	}
	slices.SortFunc(all, func(a, b Volume) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// Available is how many bytes a new volume may have now; see [Service].
func (m *Manager) Available(ctx context.Context) (int64, error) {
	return run(ctx, m.ops, "", func() (int64, error) { return m.available(ctx) })
}

func (m *Manager) available(ctx context.Context) (int64, error) {
	c, err := m.pool.Capacity(ctx)
	if err != nil {
		return 0, fmt.Errorf("capacity of the pool: %w", err)
	}
	return room(c, m.ratio), nil
}

// describe is a copy of what the record says.
func (m *Manager) describe(e *entry) Volume {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.describeLocked(e)
}

func (m *Manager) describeLocked(e *entry) Volume {
	v := Volume{
		ID:           m.id(e),
		UUID:         e.uuid,
		Name:         e.meta.Name,
		Size:         e.size,
		CreatedAt:    e.meta.CreatedAt,
		Parameters:   e.meta.Parameters,
		Capabilities: e.meta.Capabilities,
		NAA:          e.meta.naa(),
		Attachments:  slices.Clone(e.meta.Attachments),
	}
	for i := range v.Attachments {
		v.Attachments[i].Node.ID = m.nodes[v.Attachments[i].Node.UUID].id
	}
	return v
}

// saw remembers the newest id that a node was heard under: a node that renewed
// its key has it everywhere, also on volumes attached before.
func (m *Manager) saw(n Node, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sawLocked(n, at)
}

func (m *Manager) sawLocked(n Node, at time.Time) {
	if !at.Before(m.nodes[n.UUID].at) {
		m.nodes[n.UUID] = sighting{n.ID, at}
	}
}

func (m *Manager) newestID(n Node) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes[n.UUID].id
}
