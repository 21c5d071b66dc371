package volume

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// load reads all records.
func (m *Manager) load(ctx context.Context) error {
	records, err := m.pool.List(ctx)
	if err != nil {
		return fmt.Errorf("list volumes: %w", err)
	}
	for _, r := range records {
		if e, err := newEntry(r); err == nil {
			m.insert(e)
		} else {
			m.refuse(r, err)
		}
	}
	for name, uuids := range m.names {
		if len(uuids) > 1 {
			m.log.Error(ambiguous(name, uuids), "No volume of this name can be created")
		}
	}
	return nil
}

// refuse leaves a volume alone: nothing of it is served, changed or deleted. It
// keeps its name, where that can be read, so that no second volume takes it.
func (m *Manager) refuse(r blockdev.Record, err error) {
	m.log.Error(err, "Volume is not served", "volume", ID(m.pool.ID(), r.ID))
	m.refused[r.ID] = err
	var named struct{ Name string }
	if json.Unmarshal(r.Meta, &named) == nil && named.Name != "" {
		m.names[named.Name] = append(m.names[named.Name], r.ID)
	}
}

// ambiguous is for a name that several volumes carry, as after a record was put
// back from a backup. By their ids they are served as ever.
func ambiguous(name string, uuids []string) error {
	return fmt.Errorf("%w: volumes %s are all named %q; delete all but one", blockdev.ErrCorrupt, strings.Join(uuids, ", "), name)
}

// newEntry makes an entry of a record that is sound. A designator that is not
// this volume's was copied from another: two disks that show the same one are
// one disk to multipath, and each would get the other's writes.
func newEntry(r blockdev.Record) (*entry, error) {
	meta, err := decodeMeta(r)
	if err != nil {
		return nil, err
	}
	if meta.naa() != NAA(r.ID) {
		return nil, fmt.Errorf("record of volume %s: %w: its NAA %s is another volume's", r.ID, blockdev.ErrCorrupt, meta.NAA)
	}
	return &entry{uuid: r.ID, size: r.Size, meta: meta, fencing: map[string]bool{}}, nil
}
