package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// blockSize is the logical block length of every volume, in bytes: what all
// initiators and boot loaders can read.
const blockSize = 512

// Create makes a volume; see [Service].
func (m *Manager) Create(ctx context.Context, o CreateOptions) (Volume, error) {
	if err := CheckCapabilities(o.Capabilities); err != nil {
		return Volume{}, err
	}
	size, err := o.Size.resolve(smallestSize(o.Capabilities))
	if err != nil {
		return Volume{}, err
	}
	return run(ctx, m.ops, "name "+o.Name, func() (Volume, error) { return m.create(ctx, o, size) })
}

func (m *Manager) create(ctx context.Context, o CreateOptions, size int64) (Volume, error) {
	if m.nameTaken(o.Name) {
		return Volume{}, fmt.Errorf("%w: %s", ErrNameTaken, o.Name)
	}
	release, err := m.allocate(ctx)
	if err != nil {
		return Volume{}, err
	}
	defer release()
	if err := m.checkRoom(ctx, size); err != nil {
		return Volume{}, err
	}
	e, err := m.make(ctx, o, size)
	if err != nil {
		return Volume{}, fmt.Errorf("create volume %s: %w", o.Name, err)
	}
	exported := m.ensureExported(ctx, e)
	m.insert(e) // the volume exists, exported or not
	if exported != nil {
		return Volume{}, exported
	}
	return m.describe(e), nil
}

func (m *Manager) nameTaken(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.names[name]) > 0
}

// allocate waits for its turn to take room; release gives it up.
func (m *Manager) allocate(ctx context.Context) (release func(), err error) {
	select {
	case m.allocating <- struct{}{}:
		return func() { <-m.allocating }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for others to allocate: %w", ctx.Err())
	}
}

// checkRoom says whether a new volume of that size may be promised. What the
// whole pool could not hold is out of range; what it cannot hold now is not.
func (m *Manager) checkRoom(ctx context.Context, size int64) error {
	c, err := m.pool.Capacity(ctx)
	if err != nil {
		return fmt.Errorf("capacity of the pool: %w", err)
	}
	if most := most(c, m.ratio); size > most {
		return fmt.Errorf("%w: %d bytes asked for, the pool holds %d at most", ErrOutOfRange, size, most)
	}
	if left := room(c, m.ratio); size > left {
		return fmt.Errorf("%w: %d bytes asked for, %d left", ErrNoRoom, size, left)
	}
	return nil
}

// make creates the volume with its record under names never used before.
func (m *Manager) make(ctx context.Context, o CreateOptions, size int64) (*entry, error) {
	id := m.newUUID()
	meta := meta{
		Version:      metaVersion,
		Name:         o.Name,
		CreatedAt:    m.now(),
		Parameters:   o.Parameters,
		Capabilities: distinct(o.Capabilities),
		NAA:          formatNAA(NAA(id)),
	}
	raw, err := meta.encode()
	if err != nil {
		return nil, err
	}
	r := blockdev.Record{ID: id, Size: size, BlockSize: blockSize, Meta: raw}
	if err := m.pool.Create(ctx, r); err != nil && !m.madeAllTheSame(ctx, id) {
		return nil, err
	}
	return newEntry(r)
}

// madeAllTheSame looks whether a Create that failed has left the volume: it
// must not stay behind unknown and keep its name from the index.
func (m *Manager) madeAllTheSame(ctx context.Context, id string) bool {
	_, err := m.pool.Get(context.WithoutCancel(ctx), id)
	if err != nil && !errors.Is(err, blockdev.ErrNotFound) {
		m.log.Error(err, "Cannot tell whether a volume was made", "volume", ID(m.pool.ID(), id))
	}
	return err == nil
}

// newUUID returns a random UUID whose designator no volume carries.
func (m *Manager) newUUID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		id := uuid.NewString()
		if _, taken := m.naas[NAA(id)]; !taken {
			return id
		}
	}
}

// ensureExported exports a volume that is not, and lets its live attachments
// in. The caller holds the volume's key.
func (m *Manager) ensureExported(ctx context.Context, e *entry) error {
	if e.device != nil {
		return nil
	}
	device, err := m.pool.Open(ctx, e.uuid)
	if err != nil {
		return fmt.Errorf("open volume %s: %w", m.id(e), err)
	}
	if err := m.exporter.Export(TargetName(e.uuid), lunConfig(e.uuid, e.meta.naa(), device)); err != nil {
		return errors.Join(fmt.Errorf("export volume %s: %w", m.id(e), err), device.Close())
	}
	e.device = device
	for _, a := range e.meta.Attachments {
		if err := m.permit(e, a); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) permit(e *entry, a Attachment) error {
	if err := m.exporter.Permit(TargetName(e.uuid), grant(a)); err != nil {
		return fmt.Errorf("permit node %s on volume %s: %w", a.Node.UUID, m.id(e), err)
	}
	return nil
}
