package driver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadinessIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		missing := errors.New("no iscsid")
		r := &readiness{look: func(context.Context) error { looks++; return missing }}
		for range 2 {
			if err := r.check(t.Context()); !errors.Is(err, missing) {
				t.Fatalf("said %v", err)
			}
		}
		if looks != 2 {
			t.Fatalf("%d looks: what is missing is looked for each time", looks)
		}
		missing = nil
		for range 3 {
			if err := r.check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if looks != 3 {
			t.Fatalf("%d looks: one finds all there, and is remembered", looks)
		}
		time.Sleep(readyFor) //nolint:forbidigo // the bubble's time
		if err := r.check(t.Context()); err != nil || looks != 4 {
			t.Fatalf("%v after %d looks: it is not remembered for ever", err, looks)
		}
	})
}

// TestReadinessOutlivesItsCaller: a look that is slower than kubelet's probes
// still comes to an end, and is the next one's answer.
func TestReadinessOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		r := &readiness{look: func(ctx context.Context) error {
			looks++
			select {
			case <-time.After(5 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := r.check(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("said %v", err)
		}
		if err := r.check(t.Context()); err != nil || looks != 1 {
			t.Fatalf("%v after %d looks", err, looks)
		}
	})
}
