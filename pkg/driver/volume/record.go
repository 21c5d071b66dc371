package volume

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// metaVersion is the version of the record that this program writes. One that
// reads a higher version must not touch it.
const metaVersion = 1

// maxClosed bounds how many nodes' closed generations a record remembers; the
// newest stay. That no number is used twice rests on meta.Generation alone.
const maxClosed = 256

// meta is what a volume's record says beyond the pool's own fields.
type meta struct {
	Version      int               `json:"version"`
	Name         string            `json:"name"`
	CreatedAt    time.Time         `json:"createdAt"`
	Parameters   map[string]string `json:"parameters,omitempty"`
	Capabilities []Capability      `json:"capabilities,omitempty"`
	// NAA is 16 hexadecimal digits.
	NAA string `json:"naa"`
	// Generation is the newest that was ever opened; it never goes back.
	Generation uint64 `json:"generation,omitempty"`
	// Attachments are the live ones, by generation.
	Attachments []Attachment `json:"attachments,omitempty"`
	// Closed is the newest closed generation of each node, by its UUID.
	Closed map[string]uint64 `json:"closed,omitempty"`
	// Deleting: the volume is to be destroyed, whatever comes.
	Deleting bool `json:"deleting,omitempty"`
}

func (m meta) encode() (json.RawMessage, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return raw, nil
}

// decodeMeta reads the meta of a record.
func decodeMeta(r blockdev.Record) (meta, error) {
	var m meta
	if err := json.Unmarshal(r.Meta, &m); err != nil {
		return meta{}, fmt.Errorf("record of volume %s: %w: %w", r.ID, blockdev.ErrCorrupt, err)
	}
	if m.Version != metaVersion {
		return meta{}, fmt.Errorf("record of volume %s has version %d, this program knows %d: run the csi-ietd that wrote it",
			r.ID, m.Version, metaVersion)
	}
	if _, err := strconv.ParseUint(m.NAA, 16, 64); err != nil {
		return meta{}, fmt.Errorf("record of volume %s: %w: naa %q", r.ID, blockdev.ErrCorrupt, m.NAA)
	}
	return m, nil
}

// clone copies what changes are made to.
func (m meta) clone() meta {
	m.Attachments = slices.Clone(m.Attachments)
	m.Closed = maps.Clone(m.Closed)
	return m
}

// attachment returns the index of a node's live attachment, -1 for none.
func (m meta) attachment(nodeUUID string) int {
	return slices.IndexFunc(m.Attachments, func(a Attachment) bool { return a.Node.UUID == nodeUUID })
}

// open adds an attachment under a generation that no attachment ever had.
func (m *meta) open(a Attachment) {
	m.Generation++
	a.Generation = m.Generation
	m.Attachments = append(m.Attachments, a)
}

// close ends the attachments of the nodes and remembers their generations.
func (m *meta) close(nodes map[string]bool) {
	if m.Closed == nil {
		m.Closed = map[string]uint64{}
	}
	m.Attachments = slices.DeleteFunc(m.Attachments, func(a Attachment) bool {
		if nodes[a.Node.UUID] {
			m.Closed[a.Node.UUID] = a.Generation
		}
		return nodes[a.Node.UUID]
	})
	m.forgetOldest()
}

func (m *meta) forgetOldest() {
	for len(m.Closed) > maxClosed {
		oldest := ""
		for node, generation := range m.Closed {
			if oldest == "" || generation < m.Closed[oldest] {
				oldest = node
			}
		}
		delete(m.Closed, oldest)
	}
}

func formatNAA(naa uint64) string { return fmt.Sprintf("%016x", naa) }

// naa is valid: decodeMeta has checked it.
func (m meta) naa() uint64 {
	n, _ := strconv.ParseUint(m.NAA, 16, 64)
	return n
}
