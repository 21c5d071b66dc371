package volume

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// stuckPool is a pool whose disk does not answer while gate is shut.
type stuckPool struct {
	blockdev.Pool
	entered, gate chan struct{}
}

func (p stuckPool) Capacity(ctx context.Context) (blockdev.Capacity, error) {
	p.entered <- struct{}{}
	<-p.gate
	return p.Pool.Capacity(ctx)
}

func TestCapacity(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	c, available, err := r.Capacity(t.Context())
	if err != nil || c.Promised != v.Size || c.Total <= 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if want, err := r.Available(t.Context()); err != nil || available <= 0 || available > want+mib || available < want-mib {
		t.Errorf("available %d, Available says %d, %v", available, want, err)
	}
	if n := r.Refused(); n != 0 {
		t.Errorf("%d refused", n)
	}
}

// TestCapacityOfAStuckPool: the caller gets away, and the next one is told
// instead of waiting too.
func TestCapacityOfAStuckPool(t *testing.T) {
	pool := stuckPool{openPool(t, t.TempDir()), make(chan struct{}, 1), make(chan struct{})}
	r := rigWith(t, "", pool)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := r.Capacity(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first: %v", err)
	}
	<-pool.entered
	if _, _, err := r.Capacity(t.Context()); !errors.Is(err, ErrPending) {
		t.Errorf("the second: %v", err)
	}
	close(pool.gate)
}
