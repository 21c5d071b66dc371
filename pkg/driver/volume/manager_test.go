package volume

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func TestCreate(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "pvc-1")
	if v.Size != 8*mib || v.Name != "pvc-1" || v.ID != ID(r.pool.ID(), v.UUID) || v.NAA != NAA(v.UUID) {
		t.Errorf("volume = %+v", v)
	}
	lun := r.exporter.targets[TargetName(v.UUID)].lun
	if lun.Serial != v.UUID || lun.T10ID != v.UUID || lun.NAA != v.NAA || lun.Vendor != "CSI-IETD" || lun.Product != "PV" ||
		!lun.WriteCache || lun.ReadOnly || lun.Device.Size() != v.Size || lun.Device.BlockSize() != 512 {
		t.Errorf("logical unit = %+v", lun)
	}
	if len(r.exporter.targets[TargetName(v.UUID)].grants) != 0 {
		t.Error("somebody may log in to a new volume")
	}
	for name, get := range map[string]func() (Volume, error){
		"Get":  func() (Volume, error) { return r.Get(t.Context(), v.ID) },
		"Find": func() (Volume, error) { return r.Find(t.Context(), "pvc-1") },
	} {
		got, err := get()
		if diff := cmp.Diff(v, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	_, err := r.Create(t.Context(), CreateOptions{Name: "pvc-1"})
	wantErr(t, "same name", err, ErrNameTaken)
}

func TestCreateRefuses(t *testing.T) {
	r := newRig(t)
	total, err := r.pool.Capacity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		o    CreateOptions
		want error
	}{
		"capability":     {CreateOptions{Name: "a", Capabilities: []Capability{{FSType: "ntfs", Mode: SingleNodeWriter}}}, ErrUnsupported},
		"empty range":    {CreateOptions{Name: "a", Size: SizeRange{Required: 2, Limit: 1}}, ErrOutOfRange},
		"overflow":       {CreateOptions{Name: "a", Size: SizeRange{Required: math.MaxInt64}}, ErrOutOfRange},
		"over the pool":  {CreateOptions{Name: "a", Size: SizeRange{Required: total.Total + mib}}, ErrOutOfRange},
		"more than free": {CreateOptions{Name: "a", Size: SizeRange{Required: total.Total - mib}}, ErrNoRoom},
	} {
		_, err := r.Create(t.Context(), tt.o)
		wantErr(t, name, err, tt.want)
	}
	if all, err := r.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%v was made, %v", all, err)
	}
}

// TestPromisesAddUp: what is promised cannot be promised again, by a volume or
// by growth.
func TestPromisesAddUp(t *testing.T) {
	r := newRig(t)
	r.Manager.pool = &smallPool{Pool: r.pool, total: 100 * mib}
	create := func(name string, size int64) error {
		_, err := r.Create(t.Context(), CreateOptions{Name: name, Size: SizeRange{Required: size}})
		return err
	}
	wantErr(t, "first", create("a", 60*mib), nil)
	if left, err := r.Available(t.Context()); err != nil || left != 40*mib {
		t.Errorf("Available = %d, %v", left, err)
	}
	wantErr(t, "second", create("b", 41*mib), ErrNoRoom)
	wantErr(t, "larger than all", create("b", 101*mib), ErrOutOfRange)
	wantErr(t, "the rest", create("b", 40*mib), nil)
	a, err := r.Find(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Expand(t.Context(), a.ID, SizeRange{Required: 61 * mib})
	wantErr(t, "growth", err, ErrOutOfRange)
	wantErr(t, "delete", r.Delete(t.Context(), a.ID), nil)
	wantErr(t, "again", create("c", 60*mib), nil)
}

// smallPool is a pool on a disk of total bytes of which nothing is used.
type smallPool struct {
	blockdev.Pool
	total int64
}

func (p *smallPool) Capacity(ctx context.Context) (blockdev.Capacity, error) {
	c, err := p.Pool.Capacity(ctx)
	c.Total, c.Free, c.Allocated = p.total, p.total, 0
	return c, err
}

func TestDelete(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	r.attach(t, v, nodeA, ext4Writer)
	wantErr(t, "attached", r.Delete(t.Context(), v.ID), ErrInUse)
	wantErr(t, "detach", r.Detach(t.Context(), v.ID, nodeA), nil)
	wantErr(t, "delete", r.Delete(t.Context(), v.ID), nil)
	wantErr(t, "delete again", r.Delete(t.Context(), v.ID), ErrNotFound)
	wantErr(t, "foreign id", r.Delete(t.Context(), "elsewhere."+v.UUID), ErrNotFound)
	if _, err := r.pool.Get(t.Context(), v.UUID); !errors.Is(err, blockdev.ErrNotFound) {
		t.Errorf("the pool still has it: %v", err)
	}
	if r.exporter.exported(v) {
		t.Error("it is still exported")
	}
	if w := r.create(t, "a"); w.UUID == v.UUID {
		t.Error("a uuid was used twice")
	}
}

// TestDeleteWaitsForIO: a delete whose I/O does not end keeps the data, hides
// the volume, and is finished by a repeated call or a restart.
func TestDeleteWaitsForIO(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	release := r.exporter.stick()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Delete(ctx, v.ID) }()
	<-r.exporter.called
	wantErr(t, "meanwhile", r.Delete(t.Context(), v.ID), ErrPending)
	cancel()
	wantErr(t, "delete", <-done, context.Canceled)
	_, err := r.Create(t.Context(), CreateOptions{Name: "a", Size: SizeRange{Required: mib}})
	wantErr(t, "its name", err, ErrNameTaken)
	_, err = r.Get(t.Context(), v.ID)
	wantErr(t, "Get", err, ErrNotFound)
	release()
	settle(t, func() error { return r.Delete(t.Context(), v.ID) })
	if _, err := r.pool.Get(t.Context(), v.UUID); !errors.Is(err, blockdev.ErrNotFound) {
		t.Errorf("the pool still has it: %v", err)
	}
}

// settle repeats a call while the one before it has not let go of the volume.
func settle(t *testing.T, call func() error) {
	t.Helper()
	for {
		err := call()
		if errors.Is(err, ErrPending) && t.Context().Err() == nil {
			continue
		}
		if err != nil {
			t.Error(err)
		}
		return
	}
}

func TestExpand(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	size, err := r.Expand(t.Context(), v.ID, SizeRange{Required: 9*mib + 1})
	if err != nil || size != 10*mib {
		t.Fatalf("Expand = %d, %v", size, err)
	}
	if got := r.exporter.targets[TargetName(v.UUID)].lun.Device.Size(); got != 10*mib {
		t.Errorf("the open device has %d bytes", got)
	}
	if diff := cmp.Diff([]string{TargetName(v.UUID)}, r.exporter.grown); diff != "" {
		t.Errorf("capacity changes told: %s", diff)
	}
	for name, tt := range map[string]struct {
		r    SizeRange
		want error
	}{
		"smaller":      {SizeRange{Required: mib}, ErrNoChange},
		"equal":        {SizeRange{Required: 10 * mib, Limit: 10 * mib}, ErrNoChange},
		"over limit":   {SizeRange{Required: mib, Limit: 10*mib - 1}, ErrOutOfRange},
		"no multiple":  {SizeRange{Required: 10*mib + 1, Limit: 11*mib - 1}, ErrOutOfRange},
		"limit below":  {SizeRange{Required: 20 * mib, Limit: 15 * mib}, ErrOutOfRange},
		"overflow":     {SizeRange{Required: math.MaxInt64}, ErrOutOfRange},
		"not the pool": {SizeRange{Required: 1 << 60}, ErrOutOfRange},
	} {
		_, err := r.Expand(t.Context(), v.ID, tt.r)
		wantErr(t, name, err, tt.want)
	}
	if len(r.exporter.grown) != 1 {
		t.Error("initiators were told of growth that did not happen")
	}
	r = r.restart(t)
	if got, err := r.Get(t.Context(), v.ID); err != nil || got.Size != 10*mib {
		t.Errorf("after a restart: %d bytes, %v", got.Size, err)
	}
}

func TestRestartExportsTheSame(t *testing.T) {
	r := newRig(t)
	v, w := r.create(t, "a"), r.create(t, "b")
	a := r.attach(t, v, nodeA, ext4Writer)
	before, _ := r.exporter.grant(v, nodeA)
	lun := r.exporter.targets[TargetName(v.UUID)].lun
	r = r.restart(t)
	after, ok := r.exporter.grant(v, nodeA)
	if diff := cmp.Diff(before, after); !ok || diff != "" {
		t.Errorf("the grant changed:\n%s", diff)
	}
	again := r.exporter.targets[TargetName(v.UUID)].lun
	lun.Device, again.Device = nil, nil
	if lun != again {
		t.Errorf("the logical unit was %+v and is %+v", lun, again)
	}
	if !r.exporter.exported(w) {
		t.Error("a volume that nobody uses is not exported")
	}
	got, err := r.Readmit(t.Context(), v.ID, node(nodeA))
	if diff := cmp.Diff(a, got); err != nil || diff != "" {
		t.Errorf("the attachment changed: %v\n%s", err, diff)
	}
}

// TestFailedExportIsMadeUpFor: a volume that could not be exported is when it
// is asked for again.
func TestFailedExportIsMadeUpFor(t *testing.T) {
	r := newRig(t)
	r.exporter.fail = errors.New("no more targets")
	_, err := r.Create(t.Context(), CreateOptions{Name: "a", Size: SizeRange{Required: mib}, Capabilities: []Capability{ext4Writer}})
	wantErr(t, "create", err, r.exporter.fail)
	r.exporter.fail = nil
	v, err := r.Find(t.Context(), "a")
	if err != nil {
		t.Fatalf("the volume is unknown: %v", err)
	}
	r.attach(t, v, nodeA, ext4Writer)
	if _, ok := r.exporter.grant(v, nodeA); !ok {
		t.Error("the node is not let in")
	}
}

func TestListOrder(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		r.create(t, name)
	}
	all, err := r.List(t.Context())
	if err != nil || len(all) != 4 {
		t.Fatalf("List = %d volumes, %v", len(all), err)
	}
	for i := 1; i < len(all); i++ {
		if all[i-1].ID >= all[i].ID {
			t.Errorf("%s before %s", all[i-1].ID, all[i].ID)
		}
	}
}

func TestCloseShutsDownFirst(t *testing.T) {
	r := newRig(t)
	v := r.create(t, "a")
	device := r.exporter.targets[TargetName(v.UUID)].lun.Device
	m, pool := r.Manager, r.pool
	r.Manager = nil
	defer pool.Close()
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.exporter.shutdown {
		t.Error("the exporter still serves")
	}
	if err := device.Sync(); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("the device is open: %v", err)
	}
	_, err := m.Create(t.Context(), CreateOptions{Name: "b"})
	wantErr(t, "create after Close", err, ErrClosed)
}
