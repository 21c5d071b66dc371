package volume

import "fmt"

// claim takes one of a node's places for the time in which an attachment is
// opened, so that two that are opened at once count both. The record of the
// attachment holds the place afterwards.
func (m *Manager) claim(n Node) (release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if has := m.opening[n.UUID] + m.attachedLocked(n.UUID); m.maxPerNode > 0 && has >= m.maxPerNode {
		return nil, fmt.Errorf("%w: node %s has %d of %d", ErrNodeFull, n.UUID, has, m.maxPerNode)
	}
	m.opening[n.UUID]++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.opening[n.UUID]--; m.opening[n.UUID] == 0 {
			delete(m.opening, n.UUID)
		}
	}, nil
}

// attachedLocked counts a node's live attachments.
func (m *Manager) attachedLocked(nodeUUID string) (n int) {
	for _, e := range m.volumes {
		if e.meta.attachment(nodeUUID) >= 0 {
			n++
		}
	}
	return n
}
