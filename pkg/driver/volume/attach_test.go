package volume

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

func TestAttach(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	a := r.attach(t, v, nodeA, ext4Writer)
	if a.Generation != 1 || a.Node != node(nodeA) || a.WriteProtected() {
		t.Errorf("attachment = %+v", a)
	}
	g, _ := r.exporter.grant(v, nodeA)
	want := iscsitarget.Grant{Initiator: InitiatorName(nodeA), CHAP: &iscsitarget.CHAP{
		User: a.Credentials.User, Secret: a.Credentials.Secret, StageNonce: true,
		MutualUser: a.Credentials.MutualUser, MutualSecret: a.Credentials.MutualSecret}}
	if diff := cmp.Diff(want, g); diff != "" {
		t.Errorf("grant (-want +got):\n%s", diff)
	}
	_, err := r.Attach(t.Context(), v.ID, AttachOptions{Node: node(nodeA), Capability: ext4Writer})
	wantErr(t, "again", err, ErrAttached)
	_, err = r.Attach(t.Context(), v.ID, AttachOptions{Node: node(nodeB), Capability: ext4Writer})
	wantErr(t, "elsewhere", err, ErrAttachedElsewhere)
	if !strings.Contains(err.Error(), node(nodeA).ID) {
		t.Errorf("%v does not name the node that holds it", err)
	}
	_, err = r.Attach(t.Context(), v.ID, AttachOptions{Node: node(nodeB), Capability: Capability{FSType: "ntfs"}})
	wantErr(t, "capability", err, ErrUnsupported)
	_, err = r.Attach(t.Context(), v.ID[:len(v.ID)-1]+"g", AttachOptions{Node: node(nodeB), Capability: ext4Writer})
	wantErr(t, "unknown volume", err, ErrNotFound)
}

func TestWriteProtection(t *testing.T) {
	for _, tt := range []struct {
		mode     AccessMode
		readOnly bool
		want     bool
	}{
		{SingleNodeWriter, false, false},
		{SingleNodeWriter, true, true},
		{SingleNodeReaderOnly, false, true},
		{MultiNodeReaderOnly, false, true},
		{MultiNodeMultiWriter, false, false},
	} {
		r := newRig(t)
		v := r.create(t, "a")
		if _, err := r.Attach(t.Context(), v.ID, AttachOptions{Node: node(nodeA), Capability: blockMode(tt.mode), ReadOnly: tt.readOnly}); err != nil {
			t.Fatal(err)
		}
		if g, ok := r.exporter.grant(v, nodeA); !ok || g.ReadOnly != tt.want {
			t.Errorf("%s, readonly %t: the grant is read-only: %t", tt.mode, tt.readOnly, g.ReadOnly)
		}
	}
}

func TestSharing(t *testing.T) {
	for _, tt := range []struct {
		first, second AccessMode
		ok            bool
	}{
		{MultiNodeMultiWriter, MultiNodeMultiWriter, true},
		{MultiNodeReaderOnly, MultiNodeReaderOnly, true},
		{MultiNodeReaderOnly, MultiNodeMultiWriter, false},
		{SingleNodeWriter, MultiNodeMultiWriter, false},
		{MultiNodeMultiWriter, SingleNodeWriter, false},
		{SingleNodeReaderOnly, SingleNodeReaderOnly, false},
		{SingleNodeMultiWriter, SingleNodeMultiWriter, false},
	} {
		err := sharing([]Attachment{{Node: node(nodeA), Capability: blockMode(tt.first)}}, tt.second)
		if (err == nil) != tt.ok || (err != nil && !errors.Is(err, ErrAttachedElsewhere)) {
			t.Errorf("%s beside %s: %v", tt.second, tt.first, err)
		}
		if err := sharing(nil, tt.second); err != nil {
			t.Errorf("%s alone: %v", tt.second, err)
		}
	}
}

// TestGenerations: every attachment has its own number and secrets, over
// detachments and restarts.
func TestGenerations(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	seen := map[string]bool{}
	for want := uint64(1); want <= 4; want++ {
		a := r.attach(t, v, nodeA, ext4Writer)
		if a.Generation != want || seen[a.Credentials.Secret] || seen[a.Credentials.User] {
			t.Errorf("generation %d, want %d; secrets repeat: %t", a.Generation, want, seen[a.Credentials.Secret])
		}
		seen[a.Credentials.Secret], seen[a.Credentials.User] = true, true
		wantErr(t, "detach", r.Detach(t.Context(), v.ID, nodeA), nil)
		r = r.restart(t)
		if e := r.volumes[v.UUID]; e.meta.Closed[nodeA] != want || len(e.meta.Attachments) != 0 {
			t.Errorf("after a restart: closed %d, want %d", e.meta.Closed[nodeA], want)
		}
	}
}

// TestRecordBeforePermission: when the record cannot be written nobody is let
// in, and when nobody can be let in the record says so all the same.
func TestRecordBeforePermission(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	broken := &brokenPool{Pool: r.pool, err: errors.New("disk on fire")}
	r.Manager.pool = broken
	_, err := r.Attach(t.Context(), v.ID, AttachOptions{Node: node(nodeA), Capability: ext4Writer})
	wantErr(t, "attach", err, broken.err)
	if _, ok := r.exporter.grant(v, nodeA); ok {
		t.Error("the node was let in without a record")
	}
	broken.err = nil
	r.exporter.fail = errors.New("target is tired")
	_, err = r.Attach(t.Context(), v.ID, AttachOptions{Node: node(nodeA), Capability: ext4Writer})
	wantErr(t, "attach", err, r.exporter.fail)
	r.exporter.fail = nil
	if a, err := r.Readmit(t.Context(), v.ID, node(nodeA)); err != nil || a.Generation != 1 {
		t.Errorf("Readmit = %+v, %v", a, err)
	}
	if _, ok := r.exporter.grant(v, nodeA); !ok {
		t.Error("the node is not let in")
	}
}

// brokenPool cannot write records while err is set; with half it has written
// them when it says so.
type brokenPool struct {
	blockdev.Pool
	err  error
	half bool
}

func (p *brokenPool) SetMeta(ctx context.Context, id string, raw json.RawMessage) error {
	if p.err == nil || p.half {
		if err := p.Pool.SetMeta(ctx, id, raw); err != nil {
			return err
		}
	}
	return p.err
}

func TestDetach(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	wantErr(t, "not attached", r.Detach(t.Context(), v.ID, nodeA), ErrNotAttached)
	r.attach(t, v, nodeA, ext4Writer)
	wantErr(t, "other node", r.Detach(t.Context(), v.ID, nodeB), ErrNotAttached)
	if _, ok := r.exporter.grant(v, nodeA); !ok {
		t.Error("detaching another node put this one out")
	}
	wantErr(t, "detach", r.Detach(t.Context(), v.ID, nodeA), nil)
	if _, ok := r.exporter.grant(v, nodeA); ok {
		t.Error("the node still has its grant")
	}
	if want := []string{TargetName(v.UUID) + " " + InitiatorName(nodeA)}; !slices.Equal(r.exporter.revoked, want) {
		t.Errorf("revoked %q, want %q", r.exporter.revoked, want)
	}
	wantErr(t, "again", r.Detach(t.Context(), v.ID, nodeA), ErrNotAttached)
	wantErr(t, "unknown volume", r.Detach(t.Context(), "x", nodeA), ErrNotFound)
}

func TestDetachAllNodes(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	r.attach(t, v, nodeA, blockMode(MultiNodeMultiWriter))
	r.attach(t, v, nodeB, blockMode(MultiNodeMultiWriter))
	wantErr(t, "detach", r.Detach(t.Context(), v.ID, ""), nil)
	slices.Sort(r.exporter.revoked)
	want := []string{TargetName(v.UUID) + " " + InitiatorName(nodeA), TargetName(v.UUID) + " " + InitiatorName(nodeB)}
	if diff := cmp.Diff(want, r.exporter.revoked); diff != "" {
		t.Errorf("revoked (-want +got):\n%s", diff)
	}
	if got, err := r.Get(t.Context(), v.ID); err != nil || len(got.Attachments) != 0 {
		t.Errorf("still attached to %v, %v", got.Attachments, err)
	}
}

// TestFenceThatDoesNotEnd: the generation is closed durably at once; nothing
// says OK, and nobody else gets the volume, before the I/O has ended.
func TestFenceThatDoesNotEnd(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	r.attach(t, v, nodeA, ext4Writer)
	release := r.exporter.stick()
	timeout := func(call func(context.Context) error) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- call(ctx) }()
		<-r.exporter.called
		cancel()
		return <-done
	}
	wantErr(t, "detach", timeout(func(ctx context.Context) error { return r.Detach(ctx, v.ID, nodeA) }), context.Canceled)
	raw, err := r.pool.Get(t.Context(), v.UUID)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := decodeMeta(raw); err != nil || len(m.Attachments) != 0 || m.Closed[nodeA] != 1 {
		t.Errorf("the record says %+v, %v", m, err)
	}
	again := func(ctx context.Context) error {
		var err error
		for err = ErrPending; errors.Is(err, ErrPending); {
			err = r.Detach(ctx, v.ID, nodeA)
		}
		return err
	}
	wantErr(t, "detach again", timeout(again), context.Canceled)
	elsewhere := func(ctx context.Context) error {
		var err error
		for err = ErrPending; errors.Is(err, ErrPending); {
			_, err = r.Attach(ctx, v.ID, AttachOptions{Node: node(nodeB), Capability: ext4Writer})
		}
		return err
	}
	wantErr(t, "attach elsewhere", timeout(elsewhere), context.Canceled)
	if _, ok := r.exporter.grant(v, nodeB); ok {
		t.Error("another node was let in while the fence stood open")
	}
	release()
	settle(t, func() error { return r.Detach(t.Context(), v.ID, nodeA) })
	if a := r.attach(t, v, nodeB, ext4Writer); a.Generation != 2 {
		t.Errorf("generation %d after the fence", a.Generation)
	}
}

// TestFenceAfterHalfWrittenRecord: the record was closed, but the pool said it
// was not. The sessions must still be ended.
func TestFenceAfterHalfWrittenRecord(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	r.attach(t, v, nodeA, ext4Writer)
	broken := &brokenPool{Pool: r.pool, err: errors.New("fsync failed"), half: true}
	r.Manager.pool = broken
	wantErr(t, "detach", r.Detach(t.Context(), v.ID, nodeA), broken.err)
	if len(r.exporter.revoked) != 0 {
		t.Error("fenced before the record was durable")
	}
	broken.err = nil
	wantErr(t, "again", r.Detach(t.Context(), v.ID, nodeA), nil)
	if len(r.exporter.revoked) != 1 {
		t.Errorf("revoked %q", r.exporter.revoked)
	}
}

// TestNewestNodeID: a node that renewed its key is known by the new id on every
// volume that it has, also after a restart.
func TestNewestNodeID(t *testing.T) {
	r := newRig(t)
	v, w := r.create(t, "a"), r.create(t, "b")
	a := r.attach(t, v, nodeA, ext4Writer)
	r.attach(t, w, nodeA, ext4Writer)
	r.now = laterThan(r.now)
	renewed := Node{UUID: nodeA, ID: nodeA + ".newkey"}
	again, err := r.Readmit(t.Context(), v.ID, renewed)
	if err != nil || again.Generation != a.Generation || again.Credentials != a.Credentials {
		t.Errorf("Readmit = %+v, %v", again, err)
	}
	for range 2 {
		for _, id := range []string{v.ID, w.ID} {
			got, err := r.Get(t.Context(), id)
			if err != nil || got.Attachments[0].Node != renewed {
				t.Errorf("%s: %+v, %v", id, got.Attachments, err)
			}
		}
		r = r.restart(t)
	}
}

// laterThan is a clock an hour ahead of another.
func laterThan(now func() time.Time) func() time.Time {
	return func() time.Time { return now().Add(time.Hour) }
}
