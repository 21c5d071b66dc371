package blockdevtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/google/go-cmp/cmp"
)

// Place is where a pool lies, with a power switch.
type Place interface {
	// Open opens the pool that lies here.
	Open() (blockdev.Pool, error)
	// Fail lets n more changes of the medium through and fails the next one
	// with err. With cut it fails all further ones: the power is off.
	Fail(n int, err error, cut bool)
	// Reached reports whether a change has failed since Fail was called,
	// and lets all further ones through.
	Reached() bool
	// AfterCut returns what the machine may find here when the power is
	// back: at least the place with every change made, and the place with
	// nothing but what was on stable storage. This place is used no more.
	AfterCut(t *testing.T) []Place
}

// PoolSuite is what a backend gives to have its Pool tested.
type PoolSuite struct {
	// New makes a place without a pool.
	New func(t *testing.T) Place
	// Thin says that volumes occupy only what was written, and that Unmap
	// gives it back.
	Thin bool
}

// Run runs the suite.
func (s PoolSuite) Run(t *testing.T) {
	t.Run("Identity", s.testIdentity)
	t.Run("Lifecycle", s.testLifecycle)
	t.Run("Invalid", s.testInvalid)
	t.Run("UnknownIDs", s.testUnknown)
	t.Run("Meta", s.testMeta)
	t.Run("Resize", s.testResize)
	t.Run("OpenOnce", s.testOpenOnce)
	t.Run("ManyAtOnce", s.testManyAtOnce)
	t.Run("SameAtOnce", s.testSameAtOnce)
	t.Run("Capacity", s.testCapacity)
	t.Run("EndedContext", s.testEndedContext)
	t.Run("Closed", s.testPoolClosed)
	t.Run("PowerCut", s.testPowerCut)
	t.Run("PowerCutOfFirstOpen", s.testFirstOpen)
	t.Run("FailingMedium", s.testFailingMedium)
}

// id returns the n-th of the ids that the suite uses.
func id(n int) string { return fmt.Sprintf("6a8e1c1e-70c5-4b8c-a5b5-%012x", n) }

func record(n int, size int64) blockdev.Record {
	return blockdev.Record{ID: id(n), Size: size, BlockSize: 512, Meta: json.RawMessage(`{"n":1}`)}
}

// open opens the pool of a place until the test ends.
func open(t *testing.T, place Place) blockdev.Pool {
	t.Helper()
	p, err := place.Open()
	ok(t, err)
	t.Cleanup(func() {
		if err := p.Close(); err != nil && !errors.Is(err, blockdev.ErrClosed) {
			t.Error(err)
		}
	})
	return p
}

func (s PoolSuite) testIdentity(t *testing.T) {
	place := s.New(t)
	p := open(t, place)
	ok(t, blockdev.ValidateID(p.ID()))
	if _, err := place.Open(); !errors.Is(err, blockdev.ErrBusy) {
		t.Errorf("opened twice: %v, want ErrBusy", err)
	}
	ok(t, p.Close())
	if again := open(t, place); again.ID() != p.ID() {
		t.Errorf("id %s became %s", p.ID(), again.ID())
	}
	if other := open(t, s.New(t)); other.ID() == p.ID() {
		t.Error("two pools have one id")
	}
}

func (s PoolSuite) testLifecycle(t *testing.T) {
	ctx := t.Context()
	place := s.New(t)
	p := open(t, place)
	wantRecords(t, p)
	r2, r1 := record(2, 1<<20), record(1, 8<<20)
	r2.BlockSize, r2.Meta = 4096, nil
	ok(t, p.Create(ctx, r2))
	ok(t, p.Create(ctx, r1))
	wantRecords(t, p, r1, r2)
	wantError(t, "Create again", p.Create(ctx, r2), blockdev.ErrExists)
	wantRecords(t, p, r1, r2)

	d, err := p.Open(ctx, r2.ID)
	ok(t, err)
	if d.Size() != r2.Size || d.BlockSize() != r2.BlockSize {
		t.Errorf("device of %d bytes in blocks of %d", d.Size(), d.BlockSize())
	}
	equal(t, d, 0, make([]byte, 1<<20))
	write(t, d, 4096, pattern(1, 4096))
	ok(t, d.Sync())
	wantError(t, "Delete of an open volume", p.Delete(ctx, r2.ID), blockdev.ErrBusy)
	wantError(t, "Close with an open device", p.Close(), blockdev.ErrBusy)
	ok(t, d.Close())

	ok(t, p.Close())
	p = open(t, place)
	wantRecords(t, p, r1, r2)
	wantContent(t, p, r2.ID, 4096, pattern(1, 4096))
	ok(t, p.Delete(ctx, r2.ID))
	wantRecords(t, p, r1)
	ok(t, p.Create(ctx, r2))
	wantContent(t, p, r2.ID, 4096, make([]byte, 4096))
	ok(t, p.Delete(ctx, r2.ID))
	ok(t, p.Delete(ctx, r1.ID))
	ok(t, p.Close())
	wantRecords(t, open(t, place))
}

// sameMeta compares a long Meta at once instead of byte by byte.
var sameMeta = cmp.Comparer(func(a, b json.RawMessage) bool { return string(a) == string(b) })

// wantRecords compares List, and Get of each, with want, ordered by id.
func wantRecords(t *testing.T, p blockdev.Pool, want ...blockdev.Record) {
	t.Helper()
	got, err := p.List(t.Context())
	ok(t, err)
	if diff := cmp.Diff(append([]blockdev.Record{}, want...), got, sameMeta); diff != "" {
		t.Fatalf("List (-want +got):\n%s", diff)
	}
	for _, r := range want {
		got, err := p.Get(t.Context(), r.ID)
		ok(t, err)
		if diff := cmp.Diff(r, got, sameMeta); diff != "" {
			t.Fatalf("Get (-want +got):\n%s", diff)
		}
	}
}

// wantContent opens a volume and looks at a part of it.
func wantContent(t *testing.T, p blockdev.Pool, id string, off int64, want []byte) {
	t.Helper()
	d, err := p.Open(t.Context(), id)
	ok(t, err)
	equal(t, d, off, want)
	ok(t, d.Close())
}

func (s PoolSuite) testInvalid(t *testing.T) {
	place := s.New(t)
	p := open(t, place)
	for name, change := range map[string]func(*blockdev.Record){
		"traversal":   func(r *blockdev.Record) { r.ID = "../../" + r.ID },
		"no id":       func(r *blockdev.Record) { r.ID = "" },
		"upper case":  func(r *blockdev.Record) { r.ID = strings.ToUpper(r.ID) },
		"size 0":      func(r *blockdev.Record) { r.Size = 0 },
		"odd size":    func(r *blockdev.Record) { r.Size = 1000 },
		"huge":        func(r *blockdev.Record) { r.Size = math.MaxInt64 },
		"block size":  func(r *blockdev.Record) { r.BlockSize = 1024 },
		"broken meta": func(r *blockdev.Record) { r.Meta = json.RawMessage(`{`) },
	} {
		r := record(1, 1<<20)
		change(&r)
		wantError(t, "Create with "+name, p.Create(t.Context(), r), blockdev.ErrInvalid)
	}
	wantRecords(t, p)
}

func (s PoolSuite) testUnknown(t *testing.T) {
	ctx := t.Context()
	p := open(t, s.New(t))
	for _, unknown := range []string{id(9), "", ".", "..", "../volumes", "a/b", strings.Repeat("x", 5000), "\x00"} {
		_, err := p.Get(ctx, unknown)
		wantError(t, "Get", err, blockdev.ErrNotFound)
		_, err = p.Open(ctx, unknown)
		wantError(t, "Open", err, blockdev.ErrNotFound)
		wantError(t, "Delete", p.Delete(ctx, unknown), blockdev.ErrNotFound)
		wantError(t, "SetMeta", p.SetMeta(ctx, unknown, nil), blockdev.ErrNotFound)
		wantError(t, "Resize", p.Resize(ctx, unknown, 1<<20), blockdev.ErrNotFound)
	}
}

func (s PoolSuite) testMeta(t *testing.T) {
	ctx := t.Context()
	place := s.New(t)
	p := open(t, place)
	r := record(1, 1<<20)
	mine := append(json.RawMessage{}, r.Meta...)
	r.Meta = mine
	ok(t, p.Create(ctx, r))
	mine[2] = 'X' // the pool keeps a copy
	r.Meta = json.RawMessage(`{"n":1}`)
	wantRecords(t, p, r)
	got, err := p.Get(ctx, r.ID)
	ok(t, err)
	got.Meta[2] = 'X'
	wantRecords(t, p, r)
	for _, meta := range []string{`{"secret":"x"}`, `null`, `"` + strings.Repeat("y", blockdev.MaxMeta-2) + `"`, `[1,2]`} {
		r.Meta = json.RawMessage(meta)
		ok(t, p.SetMeta(ctx, r.ID, r.Meta))
		wantRecords(t, p, r)
	}
	for _, bad := range []string{`{"secret"`, `"` + strings.Repeat("y", blockdev.MaxMeta) + `"`} {
		err := p.SetMeta(ctx, r.ID, json.RawMessage(bad))
		wantError(t, "SetMeta", err, blockdev.ErrInvalid)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats the value: %v", err)
		}
	}
	ok(t, p.Close())
	wantRecords(t, open(t, place), r)
}

func (s PoolSuite) testResize(t *testing.T) {
	ctx := t.Context()
	place := s.New(t)
	p := open(t, place)
	r := record(1, 1<<20)
	ok(t, p.Create(ctx, r))
	d, err := p.Open(ctx, r.ID)
	ok(t, err)
	write(t, d, 0, pattern(1, 1<<20))
	r.Size = 3 << 20
	for range 2 { // the current size is no change
		ok(t, p.Resize(ctx, r.ID, r.Size))
	}
	wantError(t, "shrink", p.Resize(ctx, r.ID, 1<<20), blockdev.ErrShrink)
	wantError(t, "odd size", p.Resize(ctx, r.ID, 3<<20+1), blockdev.ErrInvalid)
	if d.Size() != r.Size {
		t.Fatalf("the open device has %d bytes", d.Size())
	}
	equal(t, d, 0, pattern(1, 1<<20))
	equal(t, d, 1<<20, make([]byte, 2<<20))
	write(t, d, r.Size-512, pattern(2, 512))
	ok(t, d.Close())
	ok(t, p.Close())
	p = open(t, place)
	wantRecords(t, p, r)
	wantContent(t, p, r.ID, r.Size-512, pattern(2, 512))
}

func (s PoolSuite) testOpenOnce(t *testing.T) {
	ctx := t.Context()
	p := open(t, s.New(t))
	r := record(1, 1<<20)
	ok(t, p.Create(ctx, r))
	const openers = 8
	devices := make(chan blockdev.Device, openers)
	var wg sync.WaitGroup
	for range openers {
		wg.Go(func() {
			d, err := p.Open(ctx, r.ID)
			if err == nil {
				devices <- d
			} else if !errors.Is(err, blockdev.ErrBusy) {
				t.Errorf("Open: %v, want ErrBusy", err)
			}
		})
	}
	wg.Wait()
	if len(devices) != 1 {
		t.Fatalf("%d openers succeeded", len(devices))
	}
	ok(t, (<-devices).Close())
	wantContent(t, p, r.ID, 0, make([]byte, 512))
}

func (s PoolSuite) testCapacity(t *testing.T) {
	ctx := t.Context()
	p := open(t, s.New(t))
	before, err := p.Capacity(ctx)
	ok(t, err)
	if before.Total <= 0 || before.Free <= 0 || before.Free > before.Total || before.Promised != 0 || before.Allocated != 0 {
		t.Errorf("an empty pool has %+v", before)
	}
	const size = 16 << 20
	r := record(1, size)
	ok(t, p.Create(ctx, r))
	d, err := p.Open(ctx, r.ID)
	ok(t, err)
	defer d.Close()
	write(t, d, 0, pattern(1, size))
	ok(t, d.Sync())
	full, err := p.Capacity(ctx)
	ok(t, err)
	if full.Promised != size || full.Allocated < size {
		t.Errorf("with a full volume of %d bytes: %+v", size, full)
	}
	u, isUnmapper := d.(blockdev.Unmapper)
	if isUnmapper != s.Thin {
		t.Fatalf("Unmapper: %v, thin: %v", isUnmapper, s.Thin)
	}
	if s.Thin {
		ok(t, u.Unmap(0, size))
		after, err := p.Capacity(ctx)
		ok(t, err)
		if after.Promised != size || after.Allocated > size/16 {
			t.Errorf("after unmapping it all: %+v", after)
		}
	}
}

func (s PoolSuite) testEndedContext(t *testing.T) {
	p := open(t, s.New(t))
	r := record(1, 1<<20)
	ok(t, p.Create(t.Context(), r))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Get(ctx, r.ID)
	wantError(t, "Get", err, context.Canceled)
	_, err = p.Open(ctx, r.ID)
	wantError(t, "Open", err, context.Canceled)
	wantError(t, "Create", p.Create(ctx, record(2, 512)), context.Canceled)
	wantError(t, "Delete", p.Delete(ctx, r.ID), context.Canceled)
	wantError(t, "SetMeta", p.SetMeta(ctx, r.ID, nil), context.Canceled)
	wantError(t, "Resize", p.Resize(ctx, r.ID, 2<<20), context.Canceled)
	wantRecords(t, p, r)
}

func (s PoolSuite) testPoolClosed(t *testing.T) {
	ctx := t.Context()
	p := open(t, s.New(t))
	ok(t, p.Close())
	wantError(t, "Close", p.Close(), blockdev.ErrClosed)
	wantError(t, "Create", p.Create(ctx, record(1, 512)), blockdev.ErrClosed)
	wantError(t, "Delete", p.Delete(ctx, id(1)), blockdev.ErrClosed)
	_, err := p.List(ctx)
	wantError(t, "List", err, blockdev.ErrClosed)
	_, err = p.Capacity(ctx)
	wantError(t, "Capacity", err, blockdev.ErrClosed)
}
