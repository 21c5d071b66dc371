package volume

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// rewrite changes a volume's record behind the Manager's back.
func (r *rig) rewrite(t *testing.T, v Volume, change func(*meta)) {
	t.Helper()
	record, err := r.pool.Get(t.Context(), v.UUID)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeMeta(record)
	if err != nil {
		t.Fatal(err)
	}
	change(&m)
	raw, err := m.encode()
	if err == nil {
		err = r.pool.SetMeta(t.Context(), v.UUID, raw)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpenRefusesOneVolume: a record that cannot be relied on costs its own
// volume and no other, and nothing of it is changed, deleted or replaced.
func TestOpenRefusesOneVolume(t *testing.T) {
	for name, tt := range map[string]struct {
		damage func(*meta)
		want   string
	}{
		"a later version":  {func(m *meta) { m.Version = 99 }, "version 99"},
		"another's NAA":    {func(m *meta) { m.NAA = formatNAA(NAA("another")) }, "another volume's"},
		"no NAA":           {func(m *meta) { m.NAA = "" }, "naa"},
		"of a live volume": {func(m *meta) { m.Version, m.Deleting = 99, true }, "version 99"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			bad, good := r.create(t, "bad"), r.create(t, "good")
			r.attach(t, bad, nodeA, ext4Writer)
			r.attach(t, good, nodeA, ext4Writer)
			r.rewrite(t, bad, tt.damage)
			before, err := r.pool.Get(t.Context(), bad.UUID)
			if err != nil {
				t.Fatal(err)
			}
			r = r.restart(t)
			if _, ok := r.exporter.grant(good, nodeA); !ok {
				t.Error("the sound volume is not served")
			}
			if r.exporter.exported(bad) {
				t.Error("the refused volume is served")
			}
			r.wantRefused(t, bad, tt.want)
			after, err := r.pool.Get(t.Context(), bad.UUID)
			if err != nil || string(after.Meta) != string(before.Meta) {
				t.Errorf("the refused record was changed: %v", err)
			}
		})
	}
}

// wantRefused: every call for the volume says why, and none that it is gone.
func (r *rig) wantRefused(t *testing.T, v Volume, why string) {
	t.Helper()
	s, ctx := Idempotent(r.Manager), t.Context()
	_, get := s.Get(ctx, v.ID)
	_, attach := s.Attach(ctx, v.ID, AttachOptions{Node: node(nodeA), Capability: ext4Writer})
	_, expand := s.Expand(ctx, v.ID, SizeRange{Required: 64 * mib})
	_, create := s.Create(ctx, CreateOptions{Name: v.Name, Size: SizeRange{Required: mib}, Capabilities: []Capability{ext4Writer}})
	for call, err := range map[string]error{
		"Get": get, "Attach": attach, "Expand": expand, "Create": create,
		"Detach": s.Detach(ctx, v.ID, nodeA), "Delete": s.Delete(ctx, v.ID),
	} {
		if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), v.UUID) ||
			errors.Is(err, ErrNotFound) || errors.Is(err, ErrPending) {
			t.Errorf("%s = %v, want the id and %q", call, err, why)
		}
	}
}

// TestOpenRefusesWhatHasNoName: where not even the name can be read the other
// volumes are served all the same.
func TestOpenRefusesWhatHasNoName(t *testing.T) {
	r := newRig(t)
	bad, good := r.create(t, "bad"), r.create(t, "good")
	if err := r.pool.SetMeta(t.Context(), bad.UUID, json.RawMessage(`["planted"]`)); err != nil {
		t.Fatal(err)
	}
	r = r.restart(t)
	if !r.exporter.exported(good) {
		t.Error("the sound volume is not served")
	}
	err := r.Delete(t.Context(), bad.ID)
	wantErr(t, "delete", err, blockdev.ErrCorrupt)
	if strings.Contains(err.Error(), "planted") {
		t.Errorf("the error repeats the record: %v", err)
	}
}

// TestDeleteDamaged: a volume whose record does not read is deleted once it was
// moved out of the pool, as the error says.
func TestDeleteDamaged(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "bad")
	r.stop(t)
	home := filepath.Join(r.dir, "volumes", v.UUID)
	if err := os.WriteFile(filepath.Join(home, "record.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = rigOver(t, r.dir)
	s := Idempotent(r.Manager)
	err := s.Delete(t.Context(), v.ID)
	wantErr(t, "in its place", err, blockdev.ErrCorrupt)
	if !strings.Contains(err.Error(), home) {
		t.Errorf("the error does not say what to move: %v", err)
	}
	if err := os.Rename(home, filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "moved away", s.Delete(t.Context(), v.ID), nil)
	wantErr(t, "again", s.Delete(t.Context(), v.ID), nil)
}

// TestOpenWithANameTwice: both volumes are served by their ids; the name can
// be used again once one of them is gone.
func TestOpenWithANameTwice(t *testing.T) {
	r := newRig(t)
	a, b := r.create(t, "a"), r.create(t, "b")
	r.attach(t, b, nodeA, ext4Writer)
	r.rewrite(t, b, func(m *meta) { m.Name = "a" })
	r = r.restart(t)
	if _, ok := r.exporter.grant(b, nodeA); !ok || !r.exporter.exported(a) {
		t.Error("one of the two is not served")
	}
	s := Idempotent(r.Manager)
	options := CreateOptions{Name: "a", Size: SizeRange{Required: 8 * mib}, Capabilities: []Capability{ext4Writer}}
	_, err := s.Create(t.Context(), options)
	if err == nil || !strings.Contains(err.Error(), a.UUID) || !strings.Contains(err.Error(), b.UUID) {
		t.Errorf("Create = %v, want an error that names both", err)
	}
	wantErr(t, "delete", s.Delete(t.Context(), a.ID), nil)
	if v, err := s.Create(t.Context(), options); err != nil || v.ID != b.ID {
		t.Errorf("Create = %s, %v, want %s", v.ID, err, b.ID)
	}
}
