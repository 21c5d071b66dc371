package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// NewExporter returns the Exporter that an iSCSI target in this process is.
func NewExporter(s *iscsitarget.Server) Exporter { return iscsiExporter{s} }

type iscsiExporter struct{ server *iscsitarget.Server }

func (x iscsiExporter) Export(target string, lun iscsitarget.LUNConfig) error {
	t, err := x.server.AddTarget(iscsitarget.TargetConfig{Name: target})
	if err != nil {
		return err
	}
	if err := t.AddLUN(exportLUN, lun); err != nil {
		// Nobody is permitted yet, so there is nobody to wait for.
		return errors.Join(err, x.server.RemoveTarget(context.Background(), target))
	}
	return nil
}

func (x iscsiExporter) Unexport(ctx context.Context, target string) error {
	err := x.server.RemoveTarget(ctx, target)
	if errors.Is(err, iscsitarget.ErrTargetNotFound) {
		return nil
	}
	return err
}

func (x iscsiExporter) Permit(target string, g iscsitarget.Grant) error {
	t, ok := x.server.Target(target)
	if !ok {
		return fmt.Errorf("%w: %s", iscsitarget.ErrTargetNotFound, target)
	}
	err := t.Permit(g)
	if errors.Is(err, iscsitarget.ErrFencing) {
		return fmt.Errorf("%w: %w", ErrPending, err)
	}
	return err
}

func (x iscsiExporter) Revoke(ctx context.Context, target, initiator string) error {
	t, ok := x.server.Target(target)
	if !ok {
		return nil
	}
	return t.Revoke(ctx, initiator)
}

func (x iscsiExporter) CapacityChanged(target string) {
	if t, ok := x.server.Target(target); ok {
		t.CapacityChanged(exportLUN)
	}
}

func (x iscsiExporter) Shutdown(ctx context.Context) error { return x.server.Shutdown(ctx) }
