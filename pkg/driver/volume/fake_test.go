package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"k8s.io/klog/v2/ktesting"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/file"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// fakeExporter is an Exporter that remembers what it was told.
type fakeExporter struct {
	mu       sync.Mutex
	targets  map[string]*fakeTarget
	revoked  []string // "target initiator", in order
	grown    []string
	shutdown bool
	// stuck, where set, keeps Revoke and Unexport from ending until it is
	// closed or their context ends.
	stuck chan struct{}
	// called gets a value each time a call waits for stuck.
	called chan struct{}
	fail   error // what Export and Permit fail with
}

type fakeTarget struct {
	lun    iscsitarget.LUNConfig
	grants map[string]iscsitarget.Grant
}

var _ Exporter = (*fakeExporter)(nil)

func newFakeExporter() *fakeExporter {
	return &fakeExporter{targets: map[string]*fakeTarget{}, called: make(chan struct{}, 100)}
}

var errFakeUnknown = errors.New("fake: no such target")

func (x *fakeExporter) Export(target string, lun iscsitarget.LUNConfig) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fail != nil {
		return x.fail
	}
	if x.targets[target] != nil {
		return fmt.Errorf("fake: target %s exists", target)
	}
	x.targets[target] = &fakeTarget{lun: lun, grants: map[string]iscsitarget.Grant{}}
	return nil
}

func (x *fakeExporter) Permit(target string, g iscsitarget.Grant) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.fail != nil {
		return x.fail
	}
	t := x.targets[target]
	if t == nil {
		return errFakeUnknown
	}
	t.grants[g.Initiator] = g
	return nil
}

func (x *fakeExporter) Unexport(ctx context.Context, target string) error {
	if err := x.drain(ctx); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.targets, target)
	return nil
}

func (x *fakeExporter) Revoke(ctx context.Context, target, initiator string) error {
	x.mu.Lock()
	if t := x.targets[target]; t != nil {
		delete(t.grants, initiator)
	}
	x.mu.Unlock()
	if err := x.drain(ctx); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.revoked = append(x.revoked, target+" "+initiator)
	return nil
}

// drain waits for the I/O in flight that stuck stands for.
func (x *fakeExporter) drain(ctx context.Context) error {
	x.mu.Lock()
	stuck := x.stuck
	x.mu.Unlock()
	if stuck == nil {
		return nil
	}
	x.called <- struct{}{}
	select {
	case <-stuck:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *fakeExporter) CapacityChanged(target string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.grown = append(x.grown, target)
}

func (x *fakeExporter) Shutdown(context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.shutdown = true
	return nil
}

// stick makes fences wait until the returned function is called.
func (x *fakeExporter) stick() (release func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	stuck := make(chan struct{})
	x.stuck = stuck
	return func() {
		x.mu.Lock()
		x.stuck = nil
		x.mu.Unlock()
		close(stuck)
	}
}

func (x *fakeExporter) grant(v Volume, nodeUUID string) (iscsitarget.Grant, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.targets[TargetName(v.UUID)]
	if t == nil {
		return iscsitarget.Grant{}, false
	}
	g, ok := t.grants[InitiatorName(nodeUUID)]
	return g, ok
}

func (x *fakeExporter) exported(v Volume) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.targets[TargetName(v.UUID)] != nil
}

// rig is a Manager over a real file pool and a fake exporter.
type rig struct {
	*Manager
	dir      string
	exporter *fakeExporter
}

func openPool(t *testing.T, dir string) *file.Pool {
	t.Helper()
	p, err := file.Open(dir, file.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newRig(t *testing.T) *rig { return rigOver(t, t.TempDir()) }

// rigOver opens a Manager over the pool in dir, until the test ends or stop.
func rigOver(t *testing.T, dir string) *rig {
	t.Helper()
	return rigWith(t, dir, openPool(t, dir))
}

func rigWith(t *testing.T, dir string, pool blockdev.Pool) *rig {
	t.Helper()
	x := newFakeExporter()
	m, err := Open(t.Context(), Config{Pool: pool, Exporter: x, Logger: ktesting.NewLogger(t, ktesting.DefaultConfig)})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{m, dir, x}
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop closes the Manager and its pool; it may be called again.
func (r *rig) stop(t *testing.T) {
	t.Helper()
	if r.Manager == nil {
		return
	}
	if err := errors.Join(r.Close(context.Background()), r.pool.Close()); err != nil {
		t.Errorf("close: %v", err)
	}
	r.Manager = nil
}

// restart is what a new process finds.
func (r *rig) restart(t *testing.T) *rig {
	t.Helper()
	r.stop(t)
	return rigOver(t, r.dir)
}

const (
	nodeA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	nodeB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func node(uuid string) Node { return Node{UUID: uuid, ID: uuid + ".key"} }

var ext4Writer = Capability{FSType: Ext4, Mode: SingleNodeWriter}

func blockMode(m AccessMode) Capability { return Capability{Block: true, Mode: m} }

func (r *rig) create(t *testing.T, name string) Volume {
	t.Helper()
	v, err := r.Create(t.Context(), CreateOptions{Name: name, Size: SizeRange{Required: 8 * mib}, Capabilities: []Capability{ext4Writer}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *rig) attach(t *testing.T, v Volume, nodeUUID string, c Capability) Attachment {
	t.Helper()
	a, err := r.Attach(t.Context(), v.ID, AttachOptions{Node: node(nodeUUID), Capability: c})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: err = %v, want %v", what, err, want)
	}
}
