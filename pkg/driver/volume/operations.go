package volume

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"k8s.io/klog/v2"
)

// errPanic is what the caller of an operation that panicked gets; the log has
// the stack.
var errPanic = errors.New("internal error; the log of the driver has the stack")

// operations runs calls, at most one at a time for a key. A system call that
// hangs on a bad disk cannot be cancelled: so each call runs in a goroutine
// that holds its key until it has really ended, while its caller leaves when
// its context ends. The goroutines belong to operations; close waits for them.
type operations struct {
	log klog.Logger

	mu      sync.Mutex
	busy    map[string]bool
	closed  bool
	running int
	idle    chan struct{} // closed once closed is set and running is 0
}

func newOperations(log klog.Logger) *operations {
	return &operations{log: log, busy: map[string]bool{}, idle: make(chan struct{})}
}

// run calls f under the key; a key that is held is ErrPending at once. The
// empty key is never held.
func run[T any](ctx context.Context, o *operations, key string, f func() (T, error)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if err := o.begin(key); err != nil {
		return none, err
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() { done <- r }() // after end: the caller may call again at once
		defer o.end(key)
		defer o.recover(key, &r.err)
		r.value, r.err = f()
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("still at work: %w", ctx.Err())
	}
}

// runError is run for a call without a value.
func runError(ctx context.Context, o *operations, key string, f func() error) error {
	_, err := run(ctx, o, key, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

func (o *operations) begin(key string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return ErrClosed
	}
	if key != "" {
		if o.busy[key] {
			return fmt.Errorf("%w: %s", ErrPending, key)
		}
		o.busy[key] = true
	}
	o.running++
	return nil
}

func (o *operations) end(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.busy, key)
	o.running--
	o.checkIdle()
}

func (o *operations) checkIdle() {
	if o.closed && o.running == 0 {
		close(o.idle)
	}
}

func (o *operations) recover(key string, err *error) {
	if p := recover(); p != nil {
		o.log.Error(fmt.Errorf("panic: %v", p), "Operation panicked", "key", key, "stack", string(debug.Stack()))
		*err = errPanic
	}
}

// close lets no call begin and waits for those that run. It may be called
// again.
func (o *operations) close(ctx context.Context) error {
	o.mu.Lock()
	if !o.closed {
		o.closed = true
		o.checkIdle()
	}
	o.mu.Unlock()
	select {
	case <-o.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("operations still at work: %w", ctx.Err())
	}
}
