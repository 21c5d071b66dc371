package volume

import (
	"context"
	"errors"
	"testing"

	"github.com/go-logr/logr"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/mem"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

func openOverTarget(t *testing.T, dir string) (*Manager, *iscsitarget.Server) {
	t.Helper()
	server := iscsitarget.NewServer(iscsitarget.Options{BootID: "boot"})
	pool := openPool(t, dir)
	m, err := Open(t.Context(), Config{Pool: pool, Exporter: NewExporter(server), Logger: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(m.Close(context.Background()), pool.Close()); err != nil {
			t.Error(err)
		}
	})
	return m, server
}

// TestOverTheTarget takes a volume through its life on the real target.
func TestOverTheTarget(t *testing.T) {
	m, server := openOverTarget(t, t.TempDir())
	v, err := m.Create(t.Context(), CreateOptions{Name: "a", Size: SizeRange{Required: mib}, Capabilities: []Capability{ext4Writer}})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := server.Target(TargetName(v.UUID)); !ok {
		t.Error("there is no target")
	}
	if _, err := m.Attach(t.Context(), v.ID, AttachOptions{Node: node(nodeA), Capability: ext4Writer}); err != nil {
		t.Error(err)
	}
	if size, err := m.Expand(t.Context(), v.ID, SizeRange{Required: 2 * mib}); err != nil || size != 2*mib {
		t.Errorf("Expand = %d, %v", size, err)
	}
	wantErr(t, "detach", m.Detach(t.Context(), v.ID, nodeA), nil)
	wantErr(t, "delete", m.Delete(t.Context(), v.ID), nil)
	if left := server.Targets(); len(left) != 0 {
		t.Errorf("%d targets left", len(left))
	}
}

func TestExporterIsIdempotent(t *testing.T) {
	server := iscsitarget.NewServer(iscsitarget.Options{})
	x := NewExporter(server)
	wantErr(t, "unexport what is not there", x.Unexport(t.Context(), TargetName("x")), nil)
	wantErr(t, "revoke where nothing is", x.Revoke(t.Context(), TargetName("x"), InitiatorName(nodeA)), nil)
	x.CapacityChanged(TargetName("x"))
	err := x.Permit(TargetName("x"), iscsitarget.Grant{Initiator: InitiatorName(nodeA)})
	wantErr(t, "permit where nothing is", err, iscsitarget.ErrTargetNotFound)
	wantErr(t, "shutdown", x.Shutdown(t.Context()), nil)
}

// TestExportThatFailsLeavesNothing: a unit that the target refuses takes its
// target with it.
func TestExportThatFailsLeavesNothing(t *testing.T) {
	server := iscsitarget.NewServer(iscsitarget.Options{})
	device, err := mem.New(mib, 512)
	if err != nil {
		t.Fatal(err)
	}
	if err := NewExporter(server).Export(TargetName("x"), lunConfig("x", 0x3<<60, oddDevice{device})); err == nil {
		t.Fatal("a device with blocks of 1000 bytes was taken")
	}
	if left := server.Targets(); len(left) != 0 {
		t.Errorf("%d targets left", len(left))
	}
}

type oddDevice struct{ blockdev.Device }

func (oddDevice) BlockSize() int { return 1000 }
