package volume

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
)

func TestRunIsExclusivePerKey(t *testing.T) {
	o := newOperations(logr.Discard())
	entered, release, first := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		first <- runError(context.Background(), o, "v", func() error { close(entered); <-release; return nil })
	}()
	<-entered
	wantErr(t, "same key", runError(t.Context(), o, "v", func() error { return nil }), ErrPending)
	wantErr(t, "other key", runError(t.Context(), o, "w", func() error { return nil }), nil)
	wantErr(t, "no key", runError(t.Context(), o, "", func() error { return nil }), nil)
	close(release)
	wantErr(t, "first", <-first, nil)
	wantErr(t, "again", runError(t.Context(), o, "v", func() error { return nil }), nil)
}

// TestCallerLeavesAtDeadline: the caller goes, the call keeps its key.
func TestCallerLeavesAtDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOperations(logr.Discard())
		release := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := runError(ctx, o, "v", func() error { <-release; return nil })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("left after %v with %v", time.Since(start), err)
		}
		wantErr(t, "while the call hangs", runError(t.Context(), o, "v", func() error { return nil }), ErrPending)

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantErr(t, "close while it hangs", o.close(ctx), context.DeadlineExceeded)
		close(release)
		wantErr(t, "close", o.close(t.Context()), nil)
		wantErr(t, "after close", runError(t.Context(), o, "v", func() error { return nil }), ErrClosed)
	})
}

func TestRunWithDeadContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := runError(ctx, newOperations(logr.Discard()), "v", func() error { t.Error("called"); return nil })
	wantErr(t, "dead context", err, context.Canceled)
}

func TestPanicFreesTheKey(t *testing.T) {
	o := newOperations(logr.Discard())
	wantErr(t, "panic", runError(t.Context(), o, "v", func() error { panic("boom") }), errPanic)
	wantErr(t, "after it", runError(t.Context(), o, "v", func() error { return nil }), nil)
	wantErr(t, "close", o.close(t.Context()), nil)
	wantErr(t, "close again", o.close(t.Context()), nil)
}
