package scsi

import (
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// Bounds on the lists of stages in a mark. Above maxStages superseded ones are
// dropped; at stageLimit the unit is flushed, so that those which are not attached can
// be, and if that does not help no further initiator attaches while the mark is set: a
// target open to any name does not let its record grow without end.
const (
	maxStages  = 64
	stageLimit = 1024
)

// withStage is the list with one more stage, as its newest, unless it is there.
func withStage(list []blockdev.Stage, s blockdev.Stage) []blockdev.Stage {
	if slices.Contains(list, s) {
		return list
	}
	return append(slices.Clone(list), s)
}

// bounded drops the oldest stages above maxStages, but only superseded ones:
// those whose initiator has a newer stage in the list, so that its old staging
// is over. A stage that an attached nexus has is never dropped. What cannot be
// dropped stays, above the bound: the number of initiators bounds it then.
func bounded(list []blockdev.Stage, attached func(blockdev.Stage) bool) []blockdev.Stage {
	excess := len(list) - maxStages
	if excess <= 0 {
		return list
	}
	var kept []blockdev.Stage
	for i, s := range list {
		if excess > 0 && !attached(s) && names(list[i+1:], s.Initiator) {
			excess--
			continue
		}
		kept = append(kept, s)
	}
	return kept
}

// names says whether the list has a stage of the initiator.
func names(list []blockdev.Stage, initiator string) bool {
	return slices.ContainsFunc(list, func(s blockdev.Stage) bool { return s.Initiator == initiator })
}
