package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/go-logr/logr"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// The crash tests run an operation and pull the plug before, or right after,
// each single step that it makes at the pool or the exporter. What the next
// process finds must hold, and repeating the operation must finish it.

var errCrashed = errors.New("the process is dead")

// plug counts steps and dies at one of them; all that follow fail.
type plug struct {
	mu      sync.Mutex
	at      int  // the step to die at, from 1; 0: never
	done    bool // the fatal step is still carried out
	step    int
	dead    bool
	devices []blockdev.Device
}

// take runs a step, unless the process is dead by then.
func (p *plug) take(f func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errCrashed
	}
	p.step++
	if p.step != p.at {
		return f()
	}
	p.dead = true
	if p.done {
		_ = f()
	}
	return errCrashed
}

type crashPool struct {
	blockdev.Pool
	plug *plug
}

func (c crashPool) Create(ctx context.Context, r blockdev.Record) error {
	return c.plug.take(func() error { return c.Pool.Create(ctx, r) })
}

func (c crashPool) Delete(ctx context.Context, id string) error {
	return c.plug.take(func() error { return c.Pool.Delete(ctx, id) })
}

func (c crashPool) Get(ctx context.Context, id string) (r blockdev.Record, err error) {
	err = c.plug.take(func() error { r, err = c.Pool.Get(ctx, id); return err })
	return r, err
}

func (c crashPool) SetMeta(ctx context.Context, id string, raw json.RawMessage) error {
	return c.plug.take(func() error { return c.Pool.SetMeta(ctx, id, raw) })
}

func (c crashPool) Resize(ctx context.Context, id string, size int64) error {
	return c.plug.take(func() error { return c.Pool.Resize(ctx, id, size) })
}

func (c crashPool) Open(ctx context.Context, id string) (d blockdev.Device, err error) {
	err = c.plug.take(func() error {
		d, err = c.Pool.Open(ctx, id)
		if err == nil {
			c.plug.devices = append(c.plug.devices, d)
		}
		return err
	})
	return d, err
}

type crashExporter struct {
	*fakeExporter
	plug *plug
}

func (c crashExporter) Export(target string, lun iscsitarget.LUNConfig) error {
	return c.plug.take(func() error { return c.fakeExporter.Export(target, lun) })
}

func (c crashExporter) Unexport(ctx context.Context, target string) error {
	return c.plug.take(func() error { return c.fakeExporter.Unexport(ctx, target) })
}

func (c crashExporter) Permit(target string, g iscsitarget.Grant) error {
	return c.plug.take(func() error { return c.fakeExporter.Permit(target, g) })
}

func (c crashExporter) CapacityChanged(target string) {
	_ = c.plug.take(func() error { c.fakeExporter.CapacityChanged(target); return nil })
}

func (c crashExporter) Revoke(ctx context.Context, target, initiator string) error {
	return c.plug.take(func() error { return c.fakeExporter.Revoke(ctx, target, initiator) })
}

// crashCase is an operation, what prepares for it, and what must hold whenever
// a new process starts: in the middle of it, and once it was repeated.
type crashCase struct {
	prepare   func(t *testing.T, r *rig)
	operate   func(ctx context.Context, s Service) error
	invariant func(t *testing.T, r *rig)
	finished  func(t *testing.T, r *rig)
}

func theVolume(t *testing.T, r *rig) Volume {
	t.Helper()
	v, err := r.Find(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func withVolumeA(operate func(context.Context, Service, Volume) error) func(context.Context, Service) error {
	return func(ctx context.Context, s Service) error {
		v, err := s.Find(ctx, "a")
		if errors.Is(err, ErrNotFound) {
			return nil // deleted, by its id, already
		}
		if err != nil {
			return err
		}
		return operate(ctx, s, v)
	}
}

var crashCases = map[string]crashCase{
	"create": {
		prepare: func(*testing.T, *rig) {},
		operate: func(ctx context.Context, s Service) error {
			_, err := s.Create(ctx, CreateOptions{Name: "a", Size: SizeRange{Required: mib}, Capabilities: []Capability{ext4Writer}})
			return err
		},
		invariant: func(t *testing.T, r *rig) {
			if all, _ := r.List(t.Context()); len(all) > 1 {
				t.Errorf("%d volumes of one name", len(all))
			}
		},
		finished: func(t *testing.T, r *rig) {
			if v := theVolume(t, r); !r.exporter.exported(v) {
				t.Error("not exported")
			}
		},
	},
	"delete": {
		prepare: func(t *testing.T, r *rig) { r.create(t, "a") },
		operate: withVolumeA(func(ctx context.Context, s Service, v Volume) error { return s.Delete(ctx, v.ID) }),
		invariant: func(t *testing.T, r *rig) {
			// Whole and served, or gone: nothing in between outlives a start.
			all, _ := r.List(t.Context())
			records, err := r.pool.List(t.Context())
			if err != nil || len(records) != len(all) || len(all) != len(r.exporter.targets) {
				t.Errorf("%d volumes, %d records, %d targets, %v", len(all), len(records), len(r.exporter.targets), err)
			}
		},
		finished: func(t *testing.T, r *rig) {
			if records, _ := r.pool.List(t.Context()); len(records) != 0 {
				t.Errorf("%d records left", len(records))
			}
		},
	},
	"attach": {
		prepare: func(t *testing.T, r *rig) { r.create(t, "a") },
		operate: withVolumeA(func(ctx context.Context, s Service, v Volume) error {
			_, err := s.Attach(ctx, v.ID, AttachOptions{Node: node(nodeA), Capability: ext4Writer})
			return err
		}),
		invariant: recordsAreGrants,
		finished: func(t *testing.T, r *rig) {
			v := theVolume(t, r)
			if _, ok := r.exporter.grant(v, nodeA); !ok || len(v.Attachments) != 1 || v.Attachments[0].Generation != 1 {
				t.Errorf("grant %t, attachments %+v", ok, v.Attachments)
			}
		},
	},
	"detach": {
		prepare:   func(t *testing.T, r *rig) { r.attach(t, r.create(t, "a"), nodeA, ext4Writer) },
		operate:   withVolumeA(func(ctx context.Context, s Service, v Volume) error { return s.Detach(ctx, v.ID, nodeA) }),
		invariant: recordsAreGrants,
		finished: func(t *testing.T, r *rig) {
			v := theVolume(t, r)
			if _, ok := r.exporter.grant(v, nodeA); ok || len(v.Attachments) != 0 {
				t.Errorf("grant %t, attachments %+v", ok, v.Attachments)
			}
			if a := r.attach(t, v, nodeB, ext4Writer); a.Generation != 2 {
				t.Errorf("generation %d is not new", a.Generation)
			}
		},
	},
	"expand": {
		prepare: func(t *testing.T, r *rig) { r.attach(t, r.create(t, "a"), nodeA, ext4Writer) },
		operate: withVolumeA(func(ctx context.Context, s Service, v Volume) error {
			_, err := s.Expand(ctx, v.ID, SizeRange{Required: 16 * mib})
			return err
		}),
		invariant: func(t *testing.T, r *rig) {
			v := theVolume(t, r)
			device := r.exporter.targets[TargetName(v.UUID)].lun.Device
			if (v.Size != 8*mib && v.Size != 16*mib) || device.Size() != v.Size {
				t.Errorf("volume of %d bytes, device of %d", v.Size, device.Size())
			}
			recordsAreGrants(t, r)
		},
		finished: func(t *testing.T, r *rig) {
			if v := theVolume(t, r); v.Size != 16*mib {
				t.Errorf("%d bytes", v.Size)
			}
		},
	},
}

// recordsAreGrants: who is let in is who the records say.
func recordsAreGrants(t *testing.T, r *rig) {
	t.Helper()
	all, _ := r.List(t.Context())
	for _, v := range all {
		if got, want := len(r.exporter.targets[TargetName(v.UUID)].grants), len(v.Attachments); got != want {
			t.Errorf("%d grants, %d attachments", got, want)
		}
		for _, a := range v.Attachments {
			if g, ok := r.exporter.grant(v, a.Node.UUID); !ok || g.CHAP.Secret != a.Credentials.Secret {
				t.Errorf("node %s is let in: %t, or with other secrets", a.Node.UUID, ok)
			}
		}
	}
}

func TestCrashAtEveryStep(t *testing.T) {
	for name, c := range crashCases {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/done=%t", name, done), func(t *testing.T) {
				steps := 0
				for at := 1; crashOnce(t, name, c, at, done); at++ {
					steps++
				}
				if steps < 2 {
					t.Errorf("only %d steps were tried", steps)
				}
			})
		}
	}
}

// crashOnce dies at one step; false: the operation has fewer.
func crashOnce(t *testing.T, name string, c crashCase, at int, done bool) bool {
	dir := t.TempDir()
	r := rigOver(t, dir)
	c.prepare(t, r)
	r.stop(t)

	pool := openPool(t, dir)
	p := &plug{}
	m, err := Open(t.Context(), Config{Pool: crashPool{pool, p}, Exporter: crashExporter{newFakeExporter(), p}, Logger: logr.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	p.step, p.at, p.done = 0, at, done
	err = c.operate(t.Context(), Idempotent(m))
	told := name == "expand" && at > 1 // that the initiators were told is not part of the answer
	if p.dead && err == nil && !done && !told {
		t.Errorf("step %d failed and the caller was told OK", at)
	}
	for _, d := range p.devices { // as the end of a process does
		_ = d.Close()
	}
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}

	r = rigOver(t, dir)
	c.invariant(t, r)
	if err := c.operate(t.Context(), Idempotent(r.Manager)); err != nil {
		t.Errorf("step %d: repeated: %v", at, err)
	}
	c.invariant(t, r)
	c.finished(t, r)
	r.stop(t)
	if t.Failed() {
		t.Fatalf("died at step %d, done = %t", at, done)
	}
	return p.dead
}
