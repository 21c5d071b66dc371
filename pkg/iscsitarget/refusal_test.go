package iscsitarget

import (
	"fmt"
	"testing"
	"time"
)

// TestRepeats: the same is told once a minute, with what was not told between.
func TestRepeats(t *testing.T) {
	var r repeats
	start := time.Unix(0, 0)
	fenced := repeat{"iqn.node", "not_permitted"}
	for _, step := range []struct {
		after  time.Duration
		key    repeat
		untold uint64
		tell   bool
	}{
		{0, fenced, 0, true},
		{2 * time.Second, fenced, 0, false},
		{4 * time.Second, fenced, 0, false},
		{5 * time.Second, repeat{"iqn.node", "authentication"}, 0, true},
		{5 * time.Second, repeat{"iqn.other", "not_permitted"}, 0, true},
		{61 * time.Second, fenced, 2, true},
		{62 * time.Second, fenced, 0, false},
		{122 * time.Second, fenced, 1, true},
	} {
		untold, tell := r.tell(step.key, start.Add(step.after))
		if untold != step.untold || tell != step.tell {
			t.Errorf("after %v, %v: %d, %t; want %d, %t", step.after, step.key, untold, tell, step.untold, step.tell)
		}
	}
}

// TestRepeatsAreBounded: made-up names take no memory and no lines beyond the
// bound, and those of long ago make room.
func TestRepeatsAreBounded(t *testing.T) {
	var r repeats
	now, lines := time.Unix(0, 0), 0
	for i := range 3 * repeatLimit {
		if _, tell := r.tell(repeat{fmt.Sprint("iqn.", i), "not_permitted"}, now); tell {
			lines++
		}
	}
	if lines != repeatLimit+1 || len(r.seen) > repeatLimit+1 {
		t.Errorf("%d lines, %d remembered; the bound is %d", lines, len(r.seen), repeatLimit)
	}
	now = now.Add(repeatInterval)
	if _, tell := r.tell(repeat{"iqn.late", "not_permitted"}, now); !tell || len(r.seen) > 2 {
		t.Errorf("a minute later: told %t, %d remembered", tell, len(r.seen))
	}
}
