package volume

import (
	"errors"
	"testing"
)

func TestCapabilityCheck(t *testing.T) {
	for _, tt := range []struct {
		c  Capability
		ok bool
	}{
		{Capability{FSType: Ext4, Mode: SingleNodeWriter}, true},
		{Capability{FSType: XFS, Mode: SingleNodeSingleWriter}, true},
		{Capability{FSType: Ext4, Mode: SingleNodeMultiWriter}, true},
		{Capability{FSType: Ext4, Mode: SingleNodeReaderOnly}, true},
		{Capability{FSType: Ext4, Mode: MultiNodeReaderOnly}, true},
		{Capability{Block: true, Mode: MultiNodeMultiWriter}, true},
		{Capability{Block: true, Mode: SingleNodeWriter}, true},
		{Capability{FSType: Ext4, Mode: MultiNodeMultiWriter}, false},
		{Capability{Block: true, FSType: Ext4, Mode: SingleNodeWriter}, false},
		{Capability{Block: true, Mode: "MULTI_NODE_SINGLE_WRITER"}, false},
		{Capability{FSType: "btrfs", Mode: SingleNodeWriter}, false},
		{Capability{FSType: "EXT4", Mode: SingleNodeWriter}, false},
		{Capability{Mode: SingleNodeWriter}, false},
		{Capability{FSType: Ext4}, false},
	} {
		if err := tt.c.Check(); (err == nil) != tt.ok || (err != nil && !errors.Is(err, ErrUnsupported)) {
			t.Errorf("%+v: %v, want ok = %t", tt.c, err, tt.ok)
		}
	}
}

func TestSameAccess(t *testing.T) {
	ext4, xfs, block := Capability{FSType: Ext4}, Capability{FSType: XFS}, Capability{Block: true}
	other := ext4
	other.Mode = SingleNodeReaderOnly
	for _, tt := range []struct {
		a, b []Capability
		want bool
	}{
		{[]Capability{ext4}, []Capability{ext4}, true},
		{[]Capability{ext4}, []Capability{other, ext4}, true},
		{[]Capability{ext4}, []Capability{xfs}, false},
		{[]Capability{ext4}, []Capability{ext4, block}, false},
		{[]Capability{ext4, block}, []Capability{ext4}, false},
	} {
		if got := sameAccess(tt.a, tt.b); got != tt.want {
			t.Errorf("sameAccess(%v, %v) = %t", tt.a, tt.b, got)
		}
	}
}

// TestCapabilitiesWithoutNumber: a request that repeats itself is one volume's.
func TestCapabilitiesWithoutNumber(t *testing.T) {
	r := newRig(t)
	o := CreateOptions{Name: "a", Size: SizeRange{Required: mib}}
	for range 10_000 {
		o.Capabilities = append(o.Capabilities, ext4Writer, blockMode(SingleNodeWriter))
	}
	v, err := r.Create(t.Context(), o)
	if err != nil || len(v.Capabilities) != 2 {
		t.Fatalf("%d capabilities, %v", len(v.Capabilities), err)
	}
	if again, err := Idempotent(r.Manager).Create(t.Context(), o); err != nil || again.ID != v.ID {
		t.Errorf("again: %s, %v", again.ID, err)
	}
}
