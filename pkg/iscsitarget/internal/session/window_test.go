package session

import (
	"fmt"
	"sync"
	"testing"
)

func TestWindow(t *testing.T) {
	for _, start := range []uint32{0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff8} {
		t.Run(fmt.Sprintf("%#x", start), func(t *testing.T) {
			w := newWindow(start, 16)
			for d, want := range map[int32]arrival{
				-1: outside, -16: outside, -1 << 31: outside, 0: inOrder, 1: early, 15: early, 16: outside, 1<<31 - 1: outside,
			} {
				if got := w.classify(start + uint32(d)); got != want {
					t.Errorf("%+d: %d, want %d", d, got, want)
				}
			}
			for i := range uint32(16) {
				if got := w.classify(start + i); got != inOrder {
					t.Fatalf("command %d: %d", i, got)
				}
				w.accept()
			}
			if got := w.classify(start + 16); got != outside {
				t.Errorf("a full window takes one more: %d", got)
			}
			w.release()
			if got := w.classify(start + 16); got != inOrder {
				t.Errorf("after a release: %d", got)
			}
			if exp, most := w.advertised(); exp != start+16 || most != start+16 {
				t.Errorf("%d..%d", exp, most)
			}
		})
	}
}

// The reader moves one end while tasks move the other.
func TestWindowConcurrently(t *testing.T) {
	w := newWindow(0xffffff00, 16)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				w.release()
			}
		})
	}
	for range 4000 {
		w.accept()
	}
	wg.Wait()
	if exp, most := w.advertised(); exp != 0xea0 || most != exp+15 {
		t.Errorf("%#x..%#x", exp, most)
	}
}

func TestSerialLess(t *testing.T) {
	for _, tt := range []struct {
		a, b uint32
		want bool
	}{{0, 0, false}, {0, 1, true}, {1, 0, false}, {0xffffffff, 0, true}, {0, 0xffffffff, false}, {0x7fffffff, 0x80000000, true}} {
		if got := serialLess(tt.a, tt.b); got != tt.want {
			t.Errorf("%#x < %#x: %t", tt.a, tt.b, got)
		}
	}
}
