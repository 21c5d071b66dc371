package text

import (
	"errors"
	"fmt"
	"testing"
)

// In full-feature phase a length is declared anew, and nothing else.
func TestExchange(t *testing.T) {
	for _, tt := range []struct {
		key, value, want string
		length           uint32
	}{
		{"MaxRecvDataSegmentLength", "512", "", 512},
		{"MaxRecvDataSegmentLength", "0x10000", "", 65536},
		{"MaxRecvDataSegmentLength", "16777215", "", 1<<24 - 1},
		{"MaxRecvDataSegmentLength", "16777216", Reject, 0},
		{"MaxRecvDataSegmentLength", "511", Reject, 0},
		{"MaxRecvDataSegmentLength", "", Reject, 0},
		{"InitiatorAlias", "me", "", 0},
		{"X-com.example", "1", NotUnderstood, 0},
		{"Nothing", "1", NotUnderstood, 0},
	} {
		x := &Exchange{}
		if got := x.Answer(Pair{tt.key, tt.value}); got != tt.want || x.MaxRecvDataSegmentLength != tt.length {
			t.Errorf("%s=%s: %q, %d", tt.key, tt.value, got, x.MaxRecvDataSegmentLength)
		}
	}
	tried := 0
	for key := range rules {
		if key == "MaxRecvDataSegmentLength" {
			continue
		}
		tried++
		if got := (&Exchange{}).Answer(Pair{key, "1"}); got != Reject {
			t.Errorf("%s: %q", key, got)
		}
	}
	for key := range loginOnly {
		if got := (&Exchange{}).Answer(Pair{key, "1"}); got != Reject {
			t.Errorf("%s: %q", key, got)
		}
	}
	if tried < 15 {
		t.Errorf("%d keys were tried", tried)
	}
}

func TestExchangeCounts(t *testing.T) {
	x := &Exchange{}
	for i := range maxKeys {
		if err := x.Once(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if err := x.Once(fmt.Sprint(i)); !errors.Is(err, ErrSyntax) {
			t.Fatalf("%d a second time: %v", i, err)
		}
	}
	if err := x.Once("more"); !errors.Is(err, ErrSyntax) {
		t.Errorf("one more: %v", err)
	}
}
