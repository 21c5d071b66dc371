package session

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestBudgetLimits(t *testing.T) {
	b := NewBudget(256 << 10)
	one, two := &account{budget: b, limit: 64 << 10}, &account{budget: b, limit: 1 << 20}
	first := one.tryGet(60 << 10)
	if first == nil || len(first.b) != 60<<10 || b.Used() != 64<<10 {
		t.Fatalf("%v, %d used", first, b.Used())
	}
	if one.tryGet(1) != nil {
		t.Error("an account went over its limit")
	}
	var held []*buffer
	for range 3 {
		held = append(held, two.tryGet(64<<10))
	}
	if two.tryGet(1) != nil {
		t.Error("the budget was exceeded")
	}
	first.free()
	if small := two.tryGet(1); small == nil || b.Used() != 196<<10 {
		t.Errorf("%d used", b.Used())
	} else {
		small.free()
	}
	for _, h := range held {
		h.free()
	}
	(*buffer)(nil).free()
	if b.Used() != 0 {
		t.Errorf("%d used at the end", b.Used())
	}
}

// A buffer comes with the length asked for, whatever it was used for before.
func TestBufferLengths(t *testing.T) {
	a := &account{budget: NewBudget(1 << 20), limit: 1 << 20}
	for _, n := range []int{0, 1, 4096, 4097, 16 << 10, 64<<10 + 1, maxBuffer, 3, 4096} {
		b := a.tryGet(n)
		if len(b.b) != n {
			t.Errorf("%d bytes for %d", len(b.b), n)
		}
		b.free()
	}
	defer func() {
		if recover() == nil {
			t.Error("a buffer longer than maxBuffer")
		}
	}()
	a.tryGet(maxBuffer + 1)
}

// Who waits for memory is woken by memory, by its account's end, and by being
// told to look whether it is gone.
func TestGetWaits(t *testing.T) {
	for name, wake := range map[string]func(a *account, held *buffer, gone *atomic.Bool){
		"memory": func(_ *account, held *buffer, _ *atomic.Bool) { held.free() },
		"closed": func(a *account, _ *buffer, _ *atomic.Bool) { a.close() },
		"gone":   func(a *account, _ *buffer, gone *atomic.Bool) { gone.Store(true); a.wake() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &account{budget: NewBudget(4096), limit: 4096}
				held := a.tryGet(4096)
				var gone atomic.Bool
				var got *buffer
				var waiter sync.WaitGroup
				waiter.Go(func() { got = a.get(1, &gone) })
				synctest.Wait()
				if got != nil {
					t.Fatal("memory beyond the budget")
				}
				wake(a, held, &gone)
				waiter.Wait()
				if (got != nil) != (name == "memory") {
					t.Errorf("got %v", got)
				}
				got.free()
				if name != "memory" {
					held.free()
				}
				if a.budget.Used() != 0 {
					t.Errorf("%d used", a.budget.Used())
				}
			})
		})
	}
}

func TestBudgetConcurrently(t *testing.T) {
	b := NewBudget(512 << 10)
	var wg sync.WaitGroup
	for i := range 8 {
		a := &account{budget: b, limit: 300 << 10}
		wg.Go(func() {
			var gone atomic.Bool
			for j := range 500 {
				a.get((i*j*977)%maxBuffer, &gone).free()
			}
		})
	}
	wg.Wait()
	if b.Used() != 0 {
		t.Errorf("%d used", b.Used())
	}
}
