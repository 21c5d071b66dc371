package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// stuffedPool has no room for a record.
type stuffedPool struct{ blockdev.Pool }

func (stuffedPool) SetMeta(context.Context, string, json.RawMessage) error {
	return fmt.Errorf("record: %w", blockdev.ErrNoSpace)
}

// TestDeleteFromAFullPool: what makes room needs none.
func TestDeleteFromAFullPool(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	r.Manager.pool = stuffedPool{r.pool}
	wantErr(t, "delete", r.Delete(t.Context(), v.ID), nil)
	if _, err := r.pool.Get(t.Context(), v.UUID); !errors.Is(err, blockdev.ErrNotFound) {
		t.Errorf("the pool still has it: %v", err)
	}
}

// lossyExporter ends exports, and says that their last flush failed.
type lossyExporter struct{ *fakeExporter }

func (x lossyExporter) Unexport(ctx context.Context, target string) error {
	return errors.Join(x.fakeExporter.Unexport(ctx, target), fmt.Errorf("flush: %w", blockdev.ErrLostWrites))
}

// TestDeleteAfterLostWrites: what is to be destroyed cannot be lost.
func TestDeleteAfterLostWrites(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	r.Manager.exporter = lossyExporter{r.exporter}
	wantErr(t, "delete", r.Delete(t.Context(), v.ID), nil)
	if _, err := r.pool.Get(t.Context(), v.UUID); !errors.Is(err, blockdev.ErrNotFound) {
		t.Errorf("the pool still has it: %v", err)
	}
}
