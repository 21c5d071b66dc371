package driver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// nodeLocks are the volumes that a call is at work on. Nobody waits for one:
// the caller is told to come again, or a volume whose target is dead would
// collect every retry.
type nodeLocks struct {
	mu   sync.Mutex
	held map[string]*nodeLock
}

// nodeLock is one volume's lock.
type nodeLock struct {
	// stuckSince is when the call returned while something of it went on;
	// zero while the call is at work.
	stuckSince time.Time
}

// acquire takes a volume's lock, or fails with ErrPending. The returned
// context tracks what the call starts: while some of that is stuck in the
// kernel, release lets go of the lock only when it has ended, so that no other
// call meets a mkfs or umount that was given up.
func (l *nodeLocks) acquire(ctx context.Context, id string) (context.Context, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[id] != nil {
		return nil, nil, fmt.Errorf("%w: %s", volume.ErrPending, id)
	}
	if l.held == nil {
		l.held = map[string]*nodeLock{}
	}
	l.held[id] = &nodeLock{}
	ctx, tracker := child.WithTracker(ctx)
	return ctx, func() { l.release(id, tracker.Idle()) }, nil
}

func (l *nodeLocks) release(id string, idle <-chan struct{}) {
	drop := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, id)
	}
	select {
	case <-idle:
		drop()
	default:
		l.mu.Lock()
		l.held[id].stuckSince = time.Now()
		l.mu.Unlock()
		// It ends with what is stuck; nothing can end that sooner.
		go func() { <-idle; drop() }()
	}
}

// stuckFor is for how long a volume's lock has been held by what is stuck in
// the kernel alone; 0 where that is not so.
func (l *nodeLocks) stuckFor(id string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lock := l.held[id]; lock != nil && !lock.stuckSince.IsZero() {
		return time.Since(lock.stuckSince)
	}
	return 0
}
