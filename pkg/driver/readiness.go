package driver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// readyFor is how long a node that had everything is taken to have it
	// still: looking starts programs, and kubelet asks every few seconds.
	readyFor = time.Minute
	// lookTimeout bounds one look.
	lookTimeout = 30 * time.Second
)

// readiness remembers for a while that nothing is missing. What is missing is
// looked for anew by everybody who asks, since it may be mended meanwhile.
type readiness struct {
	look func(context.Context) error

	looking singleflight.Group
	mu      sync.Mutex
	until   time.Time
}

// check is nil if nothing is missing. A look that takes longer than the caller
// waits goes on, and the next caller has its answer.
func (r *readiness) check(ctx context.Context) error {
	r.mu.Lock()
	fresh := time.Now().Before(r.until)
	r.mu.Unlock()
	if fresh {
		return nil
	}
	look := r.looking.DoChan("", func() (any, error) { return nil, r.lookNow(ctx) })
	select {
	case result := <-look:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("looking at what this node has takes long: %w", ctx.Err())
	}
}

func (r *readiness) lookNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	if err := r.look(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = time.Now().Add(readyFor)
	return nil
}
