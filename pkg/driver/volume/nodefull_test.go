package volume

import (
	"errors"
	"sync"
	"testing"
)

// TestNodeFull: a node has its places and no more, whoever else has how many;
// repeating an attachment takes none, and detaching gives one back.
func TestNodeFull(t *testing.T) {
	r := newRig(t)
	r.maxPerNode = 2
	var all []Volume
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, r.create(t, name))
	}
	r.attach(t, all[0], nodeA, ext4Writer)
	r.attach(t, all[1], nodeA, ext4Writer)
	o := AttachOptions{Node: node(nodeA), Capability: ext4Writer}
	_, err := r.Attach(t.Context(), all[2].ID, o)
	wantErr(t, "a third", err, ErrNodeFull)
	_, err = r.Attach(t.Context(), all[1].ID, o)
	wantErr(t, "one that is there", err, ErrAttached)
	r.attach(t, all[2], nodeB, ext4Writer)
	if err := errors.Join(r.Detach(t.Context(), all[2].ID, nodeB), r.Detach(t.Context(), all[0].ID, nodeA)); err != nil {
		t.Fatal(err)
	}
	r.attach(t, all[2], nodeA, ext4Writer)
	if len(r.opening) != 0 {
		t.Errorf("places of attachments that are open: %v", r.opening)
	}
}

// TestNodeFullAtOnce: of many at one time only as many get in as there is room.
func TestNodeFullAtOnce(t *testing.T) {
	r := newRig(t)
	r.maxPerNode = 3
	errs := make([]error, 8)
	var g sync.WaitGroup
	for i := range errs {
		v := r.create(t, string(rune('a'+i)))
		g.Go(func() {
			_, errs[i] = r.Attach(t.Context(), v.ID, AttachOptions{Node: node(nodeA), Capability: ext4Writer})
		})
	}
	g.Wait()
	in := 0
	for _, err := range errs {
		switch {
		case err == nil:
			in++
		case !errors.Is(err, ErrNodeFull):
			t.Error(err)
		}
	}
	// Two that look while a third is both opening and recorded may both be
	// refused; never may more get in.
	if in == 0 || in > 3 {
		t.Errorf("%d of 3 places taken", in)
	}
}
