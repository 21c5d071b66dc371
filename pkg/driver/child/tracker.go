package child

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Tracker knows what of one operation is still running, so that the next
// operation on the same thing need not meet it.
type Tracker struct {
	mu      sync.Mutex
	running int
	idle    chan struct{} // closed while nothing runs
}

type trackerKey struct{}

// WithTracker returns a context whose programs and calls are tracked.
func WithTracker(ctx context.Context) (context.Context, *Tracker) {
	t := &Tracker{idle: make(chan struct{})}
	close(t.idle)
	return context.WithValue(ctx, trackerKey{}, t), t
}

// Idle is closed when nothing of the operation runs any more.
func (t *Tracker) Idle() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.idle
}

// Idle is closed when nothing runs that ctx's tracker knows.
func Idle(ctx context.Context) <-chan struct{} {
	if t, ok := ctx.Value(trackerKey{}).(*Tracker); ok {
		return t.Idle()
	}
	idle := make(chan struct{})
	close(idle)
	return idle
}

// AwaitIdle waits, until ctx ends, for what ctx's tracker knows to be stuck.
func AwaitIdle(ctx context.Context) error {
	select {
	case <-Idle(ctx):
		return nil
	case <-ctx.Done():
		return errors.Join(ErrStuck, ctx.Err())
	}
}

func (t *Tracker) add(n int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running == 0 {
		t.idle = make(chan struct{})
	}
	if t.running += n; t.running == 0 {
		close(t.idle)
	}
}

// track runs f in a goroutine. It counts as running until f has returned and,
// where that comes first, release was not called; release says that the caller
// has seen the end itself, so that Idle is closed when the caller goes on.
func track(ctx context.Context, f func()) (release func()) {
	t, _ := ctx.Value(trackerKey{}).(*Tracker)
	t.add(1)
	var once sync.Once
	release = func() { once.Do(func() { t.add(-1) }) }
	go func() {
		defer release()
		f()
	}()
	return release
}

// Do calls f, which may block in the kernel, and leaves it alone when ctx ends
// first; the error is then ErrStuck with the context's. f must not touch what
// its caller reads after that.
func Do(ctx context.Context, what string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	done := make(chan error, 1)
	release := track(ctx, func() { done <- f() })
	select {
	case err := <-done:
		release()
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, errors.Join(ErrStuck, ctx.Err()))
	}
}
