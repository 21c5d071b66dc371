package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// Config is what a Manager is made of.
type Config struct {
	Pool     blockdev.Pool
	Exporter Exporter
	// OverProvisioningRatio is how many times its size the pool may
	// promise; 0 means 1.
	OverProvisioningRatio float64
	// MaxPerNode is how many volumes a node may have attached at one time; 0
	// is no limit.
	MaxPerNode int
	Logger     klog.Logger
}

// Manager is the Service that works on a pool.
type Manager struct {
	pool     blockdev.Pool
	exporter Exporter
	ratio    float64
	// maxPerNode is 0 for no limit.
	maxPerNode int
	log        klog.Logger
	now        func() time.Time

	ops *operations
	// allocating is held while room is looked for and taken.
	allocating chan struct{}

	mu      sync.Mutex // guards what follows, and size and meta of every entry
	volumes map[string]*entry
	names   map[string][]string // volume name to UUIDs: more than one is damage
	naas    map[uint64]string   // designator to UUID
	nodes   map[string]sighting
	opening map[string]int // attachments that are being opened, by node

	// refused says why a volume that is in the pool is not served, by UUID.
	// It does not change after Open.
	refused map[string]error
}

// entry is one volume. Its size and meta mirror the record; they are changed
// under the volume's operation key and the Manager's mu. The rest belongs to
// whoever holds the operation key.
type entry struct {
	uuid string
	size int64
	meta meta
	// device is open while the volume is exported.
	device blockdev.Device
	// fencing are nodes whose generation is closed and whose sessions may
	// not have ended yet. It needs no record: no session outlives the
	// process.
	fencing map[string]bool
}

// sighting is the newest node_id that a node was heard under.
type sighting struct {
	id string
	at time.Time
}

var _ Service = (*Manager)(nil)

// Open returns a Manager over the pool, once every volume in it is exported
// and every live attachment let in again. A volume that cannot be exported is
// logged and left out until it is attached again, one whose record cannot be
// relied on until the record is mended; neither keeps another from being served.
func Open(ctx context.Context, c Config) (*Manager, error) {
	m := &Manager{
		pool:       c.Pool,
		exporter:   c.Exporter,
		ratio:      c.OverProvisioningRatio,
		maxPerNode: c.MaxPerNode,
		log:        c.Logger,
		now:        func() time.Time { return time.Now().UTC().Truncate(time.Millisecond) },
		ops:        newOperations(c.Logger),
		allocating: make(chan struct{}, 1),
		volumes:    map[string]*entry{},
		names:      map[string][]string{},
		naas:       map[uint64]string{},
		nodes:      map[string]sighting{},
		opening:    map[string]int{},
		refused:    map[string]error{},
	}
	if m.ratio == 0 {
		m.ratio = 1
	}
	if err := m.load(ctx); err != nil {
		return nil, err
	}
	for _, e := range m.volumes {
		m.resume(ctx, e)
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, m.Close(context.WithoutCancel(ctx)))
	}
	return m, nil
}

// insert puts a volume into the index.
func (m *Manager) insert(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.volumes[e.uuid] = e
	m.names[e.meta.Name] = append(m.names[e.meta.Name], e.uuid)
	m.naas[e.meta.naa()] = e.uuid
	for _, a := range e.meta.Attachments {
		m.sawLocked(a.Node, a.NodeSeen)
	}
}

// remove takes a volume out of the index.
func (m *Manager) remove(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.volumes, e.uuid)
	if m.names[e.meta.Name] = without(m.names[e.meta.Name], e.uuid); len(m.names[e.meta.Name]) == 0 {
		delete(m.names, e.meta.Name)
	}
	delete(m.naas, e.meta.naa())
}

func without(uuids []string, uuid string) []string {
	return slices.DeleteFunc(uuids, func(u string) bool { return u == uuid })
}

// resume goes on with a volume where the last process left it.
func (m *Manager) resume(ctx context.Context, e *entry) {
	var err error
	if e.meta.Deleting {
		err = m.destroy(ctx, e)
	} else {
		err = m.ensureExported(ctx, e)
	}
	if err != nil {
		m.log.Error(err, "Volume is not served", "volume", m.id(e), "deleting", e.meta.Deleting)
	}
}

// Close waits for the operations that run, ends all sessions, and then closes
// the devices; the exports come back at the next Open. It leaves the pool open.
// When the context ends first, devices with I/O in flight stay open.
func (m *Manager) Close(ctx context.Context) error {
	if err := m.ops.close(ctx); err != nil {
		return err
	}
	if err := m.exporter.Shutdown(ctx); err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	var errs []error
	for _, e := range m.volumes {
		errs = append(errs, e.closeDevice())
	}
	return errors.Join(errs...)
}

func (e *entry) closeDevice() error {
	if e.device == nil {
		return nil
	}
	err := e.device.Close()
	e.device = nil
	return err
}

func (m *Manager) id(e *entry) string { return ID(m.pool.ID(), e.uuid) }

// lookup finds a volume by its volume_id, one that is being deleted too.
func (m *Manager) lookup(ctx context.Context, id string) (*entry, error) {
	uuid, err := parseID(m.pool.ID(), id)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	e, ok := m.volumes[uuid]
	m.mu.Unlock()
	if !ok {
		return nil, m.unknown(ctx, id, uuid)
	}
	return e, nil
}

// unknown says why a volume is not in the index. There may be one that is not
// served: that one exists, and is not deleted by saying so.
func (m *Manager) unknown(ctx context.Context, id, uuid string) error {
	if err := m.refused[uuid]; err != nil {
		return err
	}
	_, err := m.pool.Get(ctx, uuid)
	if err == nil {
		return fmt.Errorf("%w: %s is being made", ErrPending, id)
	}
	if errors.Is(err, blockdev.ErrNotFound) {
		return fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return err
}

// living finds a volume that is not being deleted.
func (m *Manager) living(ctx context.Context, id string) (*entry, error) {
	e, err := m.lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.meta.Deleting {
		return nil, fmt.Errorf("%w: %s is being deleted", ErrNotFound, id)
	}
	return e, nil
}

// update changes a volume's record durably. When that fails, what the record
// says is unknown: it is read back, and where that fails too the old view
// stays. The caller holds the volume's key.
func (m *Manager) update(ctx context.Context, e *entry, change func(*meta)) error {
	next := e.meta.clone()
	change(&next)
	raw, err := next.encode()
	if err != nil {
		return err
	}
	if err := m.pool.SetMeta(ctx, e.uuid, raw); err != nil {
		m.reload(ctx, e)
		return fmt.Errorf("record of volume %s: %w", m.id(e), err)
	}
	m.adopt(e, e.size, next)
	return nil
}

// reload reads a volume's record back after a failure.
func (m *Manager) reload(ctx context.Context, e *entry) {
	r, err := m.pool.Get(context.WithoutCancel(ctx), e.uuid)
	if err != nil {
		m.log.Error(err, "Record cannot be read back", "volume", m.id(e))
		return
	}
	meta, err := decodeMeta(r)
	if err != nil {
		m.log.Error(err, "Record cannot be read back", "volume", m.id(e))
		return
	}
	m.adopt(e, r.Size, meta)
}

// adopt takes over what the record says now. Nodes whose attachment is gone
// have to be fenced before anything else gets the volume.
func (m *Manager) adopt(e *entry, size int64, next meta) {
	for _, a := range e.meta.Attachments {
		if next.attachment(a.Node.UUID) < 0 {
			e.fencing[a.Node.UUID] = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e.size, e.meta = size, next
}
