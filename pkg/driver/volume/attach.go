package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Attach opens a generation; see [Service]. The order is: fences that an
// earlier call left unfinished, the export, the record, the permission. A crash
// before the record changes nothing; after it the next Open gives the
// permission.
func (m *Manager) Attach(ctx context.Context, id string, o AttachOptions) (Attachment, error) {
	return m.withVolume(ctx, id, func(e *entry) (Attachment, error) { return m.attach(ctx, e, o) })
}

// withVolume runs f under the key of a volume that is not being deleted.
func (m *Manager) withVolume(ctx context.Context, id string, f func(*entry) (Attachment, error)) (Attachment, error) {
	e, err := m.living(ctx, id)
	if err != nil {
		return Attachment{}, err
	}
	return run(ctx, m.ops, e.uuid, func() (Attachment, error) {
		e, err := m.living(ctx, id) // it may have gone while we got the key
		if err != nil {
			return Attachment{}, err
		}
		return f(e)
	})
}

func (m *Manager) attach(ctx context.Context, e *entry, o AttachOptions) (Attachment, error) {
	if err := o.Capability.Check(); err != nil {
		return Attachment{}, err
	}
	if e.meta.attachment(o.Node.UUID) >= 0 {
		return Attachment{}, fmt.Errorf("%w: %s to node %s", ErrAttached, m.id(e), o.Node.UUID)
	}
	if err := sharing(e.meta.Attachments, o.Capability.Mode); err != nil {
		return Attachment{}, fmt.Errorf("volume %s: %w", m.id(e), err)
	}
	release, err := m.claim(o.Node)
	if err != nil {
		return Attachment{}, fmt.Errorf("attach volume %s: %w", m.id(e), err)
	}
	defer release()
	if err := m.fence(ctx, e, e.fenced("")); err != nil {
		return Attachment{}, fmt.Errorf("earlier detachment: %w", err)
	}
	if err := m.ensureExported(ctx, e); err != nil {
		return Attachment{}, err
	}
	if err := m.open(ctx, e, o); err != nil {
		return Attachment{}, err
	}
	a := e.meta.Attachments[e.meta.attachment(o.Node.UUID)]
	return a, m.permit(e, a)
}

// open records a new generation with fresh secrets.
func (m *Manager) open(ctx context.Context, e *entry, o AttachOptions) error {
	now := m.now()
	err := m.update(ctx, e, func(meta *meta) {
		meta.open(Attachment{
			Node:        o.Node,
			Capability:  o.Capability,
			ReadOnly:    o.ReadOnly,
			Credentials: mintCredentials(),
			Since:       now,
			NodeSeen:    now,
		})
	})
	if err == nil {
		m.saw(o.Node, now)
	}
	return err
}

// sharing says whether another node may come in beside those that are there:
// only where all use the same multi-node mode.
func sharing(there []Attachment, mode AccessMode) error {
	for _, a := range there {
		if !mode.MultiNode() || a.Capability.Mode != mode {
			return fmt.Errorf("%w: it is held by %s as %s and asked for as %s",
				ErrAttachedElsewhere, nodeIDs(there), a.Capability.Mode, mode)
		}
	}
	return nil
}

func nodeIDs(as []Attachment) string {
	ids := make([]string, 0, len(as))
	for _, a := range as {
		ids = append(ids, a.Node.ID)
	}
	return strings.Join(ids, ", ")
}

// Readmit lets the node of a live attachment in again; see [Service].
func (m *Manager) Readmit(ctx context.Context, id string, node Node) (Attachment, error) {
	return m.withVolume(ctx, id, func(e *entry) (Attachment, error) { return m.readmit(ctx, e, node) })
}

func (m *Manager) readmit(ctx context.Context, e *entry, node Node) (Attachment, error) {
	i := e.meta.attachment(node.UUID)
	if i < 0 {
		return Attachment{}, fmt.Errorf("%w: %s to node %s", ErrNotAttached, m.id(e), node.UUID)
	}
	if e.meta.Attachments[i].Node.ID != node.ID || m.newestID(node) != node.ID {
		if err := m.renew(ctx, e, i, node); err != nil {
			return Attachment{}, err
		}
	}
	if err := m.ensureExported(ctx, e); err != nil {
		return Attachment{}, err
	}
	a := e.meta.Attachments[i]
	return a, m.permit(e, a)
}

// renew records that an attachment's node goes by a new id.
func (m *Manager) renew(ctx context.Context, e *entry, i int, node Node) error {
	now := m.now()
	err := m.update(ctx, e, func(meta *meta) {
		meta.Attachments[i].Node = node
		meta.Attachments[i].NodeSeen = now
	})
	if err == nil {
		m.saw(node, now)
	}
	return err
}

// Detach is the fence; see [Service]. The order is: the generation is closed
// durably, then the target lets go. No session outlives the process, so after
// a crash between the two the closed record is all that is needed.
func (m *Manager) Detach(ctx context.Context, id, nodeUUID string) error {
	e, err := m.lookup(ctx, id)
	if err != nil {
		return err
	}
	return runError(ctx, m.ops, e.uuid, func() error {
		if e, err = m.lookup(ctx, id); err != nil {
			return err
		}
		return m.detach(ctx, e, nodeUUID)
	})
}

func (m *Manager) detach(ctx context.Context, e *entry, nodeUUID string) error {
	closing := map[string]bool{}
	for _, a := range e.meta.Attachments {
		if nodeUUID == "" || a.Node.UUID == nodeUUID {
			closing[a.Node.UUID] = true
		}
	}
	if len(closing) == 0 && len(e.fenced(nodeUUID)) == 0 {
		return fmt.Errorf("%w: %s to node %s", ErrNotAttached, m.id(e), nodeUUID)
	}
	if len(closing) > 0 {
		if err := m.update(ctx, e, func(meta *meta) { meta.close(closing) }); err != nil {
			return err
		}
	}
	return m.fence(ctx, e, e.fenced(nodeUUID))
}

// fenced are the nodes that wait to be fenced, that one or all.
func (e *entry) fenced(nodeUUID string) []string {
	var nodes []string
	for node := range e.fencing {
		if nodeUUID == "" || node == nodeUUID {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// fence ends what the nodes still have of the volume. All are cut off at once;
// it returns when the last is.
func (m *Manager) fence(ctx context.Context, e *entry, nodes []string) error {
	errs := make([]error, len(nodes))
	var g sync.WaitGroup
	for i, node := range nodes {
		g.Go(func() { errs[i] = m.exporter.Revoke(ctx, TargetName(e.uuid), InitiatorName(node)) })
	}
	g.Wait()
	for i, node := range nodes {
		if errs[i] == nil {
			delete(e.fencing, node)
			continue
		}
		errs[i] = fmt.Errorf("fence node %s off volume %s: %w", node, m.id(e), errs[i])
	}
	return errors.Join(errs...)
}
