package driver

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// Every volume is reached from every node, so there is one segment. It is told
// at all because Kubernetes keeps a driver's capacity per segment, and with none
// external-provisioner deletes the figure as often as it writes it: an empty
// label selector comes back from the API server unequal. The label is one that
// every node has, so that nothing of ours stays on nodes.
const (
	segmentKey   = "kubernetes.io/os"
	segmentValue = "linux"
)

func segment() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{segmentKey: segmentValue}}
}

// reaches reports whether our volumes are accessible from a part of a topology:
// it names nothing but our segment.
func reaches(t *csi.Topology) bool {
	for key, value := range t.GetSegments() {
		if key != segmentKey || value != segmentValue {
			return false
		}
	}
	return true
}

// checkRequirement is nil if volumes are accessible from one of the topologies
// that the request is content with.
func checkRequirement(r *csi.TopologyRequirement) error {
	for _, t := range r.GetRequisite() {
		if reaches(t) {
			return nil
		}
	}
	if len(r.GetRequisite()) == 0 {
		return nil
	}
	return fmt.Errorf("%w that is accessible as asked for: volumes are reached from nodes with %s=%s", volume.ErrNoRoom, segmentKey, segmentValue)
}
