package volume

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIdempotentCreate(t *testing.T) {
	r := newRig(t)
	s := Idempotent(r.Manager)
	o := CreateOptions{Name: "a", Size: SizeRange{Required: 8 * mib}, Capabilities: []Capability{ext4Writer},
		Parameters: map[string]string{OrchestratorPrefix + "pvc/name": "claim"}}
	v, err := s.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*CreateOptions)
		want   error
	}{
		"same":        {func(*CreateOptions) {}, nil},
		"smaller":     {func(o *CreateOptions) { o.Size.Required = mib }, nil},
		"any size":    {func(o *CreateOptions) { o.Size = SizeRange{} }, nil},
		"exact":       {func(o *CreateOptions) { o.Size.Limit = 8 * mib }, nil},
		"larger":      {func(o *CreateOptions) { o.Size.Required = 9 * mib }, ErrIncompatible},
		"limit below": {func(o *CreateOptions) { o.Size = SizeRange{Limit: 7 * mib} }, ErrIncompatible},
		"other mode":  {func(o *CreateOptions) { o.Capabilities = []Capability{{FSType: Ext4, Mode: SingleNodeSingleWriter}} }, nil},
		"other fs": {func(o *CreateOptions) {
			o.Capabilities = []Capability{{FSType: XFS, Mode: SingleNodeWriter}}
			o.Size.Required = 0
		}, ErrIncompatible},
		"block":           {func(o *CreateOptions) { o.Capabilities = []Capability{blockMode(SingleNodeWriter)} }, ErrIncompatible},
		"other claim":     {func(o *CreateOptions) { o.Parameters = nil }, nil},
		"other parameter": {func(o *CreateOptions) { o.Parameters = map[string]string{"k": "v"} }, ErrIncompatible},
	} {
		repeat := o
		tt.change(&repeat)
		got, err := s.Create(t.Context(), repeat)
		wantErr(t, name, err, tt.want)
		if diff := cmp.Diff(v, got); tt.want == nil && diff != "" {
			t.Errorf("%s: another volume:\n%s", name, diff)
		}
	}
	if all, _ := s.List(t.Context()); len(all) != 1 {
		t.Errorf("%d volumes", len(all))
	}
}

func TestIdempotentCreateDuringDelete(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	release := r.exporter.stick()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Delete(ctx, v.ID) }()
	<-r.exporter.called
	_, err := Idempotent(r.Manager).Create(t.Context(), CreateOptions{Name: "a"})
	wantErr(t, "create while it is deleted", err, ErrPending)
	release()
	wantErr(t, "delete", <-done, nil)
	cancel()
}

func TestIdempotentAttach(t *testing.T) {
	r := newRig(t)
	s := Idempotent(r.Manager)
	v := r.create(t, "a")
	o := AttachOptions{Node: node(nodeA), Capability: ext4Writer}
	first, err := s.Attach(t.Context(), v.ID, o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Attach(t.Context(), v.ID, o)
	if diff := cmp.Diff(first, again); err != nil || diff != "" {
		t.Errorf("again: %v\n%s", err, diff)
	}
	o.ReadOnly = true
	_, err = s.Attach(t.Context(), v.ID, o)
	wantErr(t, "other readonly", err, ErrIncompatible)
	o = AttachOptions{Node: node(nodeA), Capability: blockMode(SingleNodeWriter)}
	_, err = s.Attach(t.Context(), v.ID, o)
	wantErr(t, "other capability", err, ErrIncompatible)
	o = AttachOptions{Node: node(nodeB), Capability: ext4Writer}
	_, err = s.Attach(t.Context(), v.ID, o)
	wantErr(t, "other node", err, ErrAttachedElsewhere)
}

func TestIdempotentEnds(t *testing.T) {
	r := newRig(t)
	s := Idempotent(r.Manager)
	v := r.create(t, "a")
	r.attach(t, v, nodeA, ext4Writer)
	wantErr(t, "delete in use", s.Delete(t.Context(), v.ID), ErrInUse)
	for range 2 {
		wantErr(t, "detach", s.Detach(t.Context(), v.ID, nodeA), nil)
		wantErr(t, "detach all", s.Detach(t.Context(), v.ID, ""), nil)
	}
	if size, err := s.Expand(t.Context(), v.ID, SizeRange{Required: mib}); size != v.Size || err != nil {
		t.Errorf("a smaller Expand = %d, %v", size, err)
	}
	for range 2 {
		wantErr(t, "delete", s.Delete(t.Context(), v.ID), nil)
		wantErr(t, "detach", s.Detach(t.Context(), v.ID, nodeA), nil)
	}
	_, err := s.Expand(t.Context(), v.ID, SizeRange{Required: 100 * mib})
	wantErr(t, "expand", err, ErrNotFound)
}
