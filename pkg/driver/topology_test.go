package driver

import (
	"errors"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

func TestCheckRequirement(t *testing.T) {
	elsewhere := &csi.Topology{Segments: map[string]string{segmentKey: "plan9"}}
	zone := &csi.Topology{Segments: map[string]string{segmentKey: segmentValue, "zone": "a"}}
	for name, tt := range map[string]struct {
		requisite []*csi.Topology
		refused   bool
	}{
		"none":          {nil, false},
		"ours":          {[]*csi.Topology{segment()}, false},
		"anywhere":      {[]*csi.Topology{{}}, false},
		"ours also":     {[]*csi.Topology{elsewhere, segment()}, false},
		"another value": {[]*csi.Topology{elsewhere}, true},
		"another key":   {[]*csi.Topology{zone}, true},
	} {
		err := checkRequirement(&csi.TopologyRequirement{Requisite: tt.requisite})
		if errors.Is(err, volume.ErrNoRoom) != tt.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := checkRequirement(nil); err != nil {
		t.Error(err)
	}
}
