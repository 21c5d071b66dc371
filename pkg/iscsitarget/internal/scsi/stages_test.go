package scsi

import (
	"fmt"
	"slices"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func stage(initiator string, nonce int) blockdev.Stage {
	return blockdev.Stage{Initiator: initiator, Nonce: fmt.Sprint(nonce)}
}

func TestBounded(t *testing.T) {
	none := func(blockdev.Stage) bool { return false }
	var one, many []blockdev.Stage
	for i := range maxStages + 3 {
		one = append(one, stage("a", i))
		many = append(many, stage(fmt.Sprint("i", i), 0))
	}
	if got := bounded(one[:maxStages], none); len(got) != maxStages {
		t.Errorf("%d left of %d", len(got), maxStages)
	}
	if got := bounded(one, none); !slices.Equal(got, one[3:]) {
		t.Errorf("kept %v", got)
	}
	if got := bounded(one, func(s blockdev.Stage) bool { return s == one[1] }); !slices.Contains(got, one[1]) || len(got) != maxStages {
		t.Errorf("an attached stage was dropped: %v", got)
	}
	if got := bounded(many, none); len(got) != len(many) {
		t.Error("a stage was dropped whose initiator has no newer one")
	}
	mixed := append(slices.Clone(many), stage("i5", 1))
	if got := bounded(mixed, none); slices.Contains(got, stage("i5", 0)) || !slices.Contains(got, stage("i5", 1)) || len(got) != len(many) {
		t.Errorf("kept %v", got)
	}
}

func TestWithStage(t *testing.T) {
	list := []blockdev.Stage{stage("a", 1), stage("b", 1)}
	if got := withStage(list, stage("a", 1)); !slices.Equal(got, list) {
		t.Errorf("%v", got)
	}
	spare := append(make([]blockdev.Stage, 0, 9), list...)
	if got := withStage(spare, stage("a", 2)); len(got) != 3 || spare[:3][2] == stage("a", 2) {
		t.Error("the list is shared with the one before")
	}
}
