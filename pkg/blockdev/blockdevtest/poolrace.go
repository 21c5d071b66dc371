package blockdevtest

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// testManyAtOnce runs whole lives of different volumes side by side.
func (s PoolSuite) testManyAtOnce(t *testing.T) {
	p := open(t, s.New(t))
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			if err := life(t, p, n); err != nil {
				t.Errorf("volume %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	wantRecords(t, p)
}

func life(t *testing.T, p blockdev.Pool, n int) error {
	ctx := t.Context()
	if err := p.Create(ctx, record(n, 1<<20)); err != nil {
		return err
	}
	d, err := p.Open(ctx, id(n))
	if err != nil {
		return err
	}
	if err := p.Resize(ctx, id(n), 2<<20); err != nil {
		return err
	}
	_, err = d.WriteAt(pattern(n, 4096), 2<<20-4096)
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	if err := p.SetMeta(ctx, id(n), json.RawMessage(`2`)); err != nil {
		return err
	}
	if _, err := p.List(ctx); err != nil {
		return err
	}
	return p.Delete(ctx, id(n))
}

// testSameAtOnce lets every call race on one id: each must end with nil or
// with the sentinel that its order of arrival explains.
func (s PoolSuite) testSameAtOnce(t *testing.T) {
	place := s.New(t)
	p := open(t, place)
	ctx := t.Context()
	calls := []func(r *rand.Rand) error{
		func(*rand.Rand) error { return p.Create(ctx, record(1, 1<<20)) },
		func(*rand.Rand) error { return p.Delete(ctx, id(1)) },
		func(r *rand.Rand) error { return p.Resize(ctx, id(1), int64(1+r.IntN(4))<<20) },
		func(*rand.Rand) error { return p.SetMeta(ctx, id(1), json.RawMessage(`3`)) },
		func(*rand.Rand) error { _, err := p.List(ctx); return err },
		func(*rand.Rand) error { _, err := p.Capacity(ctx); return err },
		func(*rand.Rand) error {
			d, err := p.Open(ctx, id(1))
			if err != nil {
				return err
			}
			_, err = d.WriteAt(pattern(1, 512), 0)
			return errors.Join(err, d.Close())
		},
	}
	expected := []error{blockdev.ErrExists, blockdev.ErrNotFound, blockdev.ErrShrink, blockdev.ErrBusy}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for range 40 {
				if err := calls[r.IntN(len(calls))](r); !isOneOf(err, expected) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	before, err := p.List(ctx)
	ok(t, err)
	ok(t, p.Close())
	wantRecords(t, open(t, place), before...)
}

func isOneOf(err error, expected []error) bool {
	for _, e := range expected {
		if errors.Is(err, e) {
			return true
		}
	}
	return err == nil
}
