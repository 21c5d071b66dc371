package file

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestOrderOfEvents is the order that doc.go promises, step by step.
func TestOrderOfEvents(t *testing.T) {
	p := newPlace(t)
	pool, err := p.open()
	ok(t, err)
	defer func() { ok(t, pool.Close()) }()
	ctx := t.Context()
	replace := func(name string) []string {
		return []string{
			"remove volumes/V/" + name + ".tmp", "create volumes/V/" + name + ".tmp", "write volumes/V/" + name + ".tmp",
			"fsync volumes/V/" + name + ".tmp", "rename volumes/V/" + name + ".tmp volumes/V/" + name, "fsyncdir volumes/V",
		}
	}
	atomicSteps := []string{ // the entry; the data, written stable; no entry
		"write volumes/V/atomic.journal", "fsync volumes/V/atomic.journal", "fsync volumes/V/data",
		"write volumes/V/atomic.journal", "fsync volumes/V/atomic.journal",
	}
	var d blockdev.Device
	steps := []struct {
		name string
		call func() error
		want []string
	}{
		{"Create", func() error { return pool.Create(ctx, blockdev.Record{ID: testID, Size: 4096, BlockSize: 512}) }, []string{
			"mkdir staging/V",
			"create staging/V/data", "truncate staging/V/data", "fsync staging/V/data",
			"create staging/V/record.json", "write staging/V/record.json", "fsync staging/V/record.json",
			"fsyncdir staging/V",
			"rename staging/V volumes/V",
			"fsyncdir volumes", "fsyncdir staging",
		}},
		{"SetMeta", func() error { return pool.SetMeta(ctx, testID, json.RawMessage(`1`)) }, append([]string{
			"remove volumes/V/record.json.spare", "create volumes/V/record.json.spare",
			"write volumes/V/record.json.spare", "fsync volumes/V/record.json.spare",
		}, replace("record.json")...)},
		{"SetMeta again", func() error { return pool.SetMeta(ctx, testID, json.RawMessage(`2`)) }, replace("record.json")},
		{"Resize", func() error { return pool.Resize(ctx, testID, 8192) },
			append([]string{"truncate volumes/V/data", "fsync volumes/V/data"}, replace("record.json")...)},
		{"Resize to the current size", func() error { return pool.Resize(ctx, testID, 8192) }, nil},
		{"Open", func() (err error) { d, err = pool.Open(ctx, testID); return err }, nil},
		{"SetVolatileMark", func() error {
			return d.(blockdev.VolatileMarker).SetVolatileMark(blockdev.VolatileMark{BootID: "b"})
		}, replace("volatile.json")},
		{"SetVolatileMark to zero", func() error {
			return d.(blockdev.VolatileMarker).SetVolatileMark(blockdev.VolatileMark{})
		}, []string{"rename volumes/V/volatile.json volumes/V/volatile.json.spare", "fsyncdir volumes/V"}},
		{"SetState", func() error { return d.(blockdev.StateKeeper).SetState(json.RawMessage(`1`)) }, append([]string{
			"remove volumes/V/unit.json.spare", "create volumes/V/unit.json.spare",
			"write volumes/V/unit.json.spare", "fsync volumes/V/unit.json.spare",
		}, replace("unit.json")...)},
		{"SetState again", func() error { return d.(blockdev.StateKeeper).SetState(json.RawMessage(`2`)) }, replace("unit.json")},
		{"SetState to nothing", func() error { return d.(blockdev.StateKeeper).SetState(nil) },
			[]string{"remove volumes/V/unit.json", "fsyncdir volumes/V"}},
		{"WriteAtomic", func() error { return d.(blockdev.AtomicWriter).WriteAtomic([]byte{1}, 0) },
			append(replace("atomic.journal"), atomicSteps...)},
		{"WriteAtomic again", func() error { return d.(blockdev.AtomicWriter).WriteAtomic([]byte{2}, 0) }, atomicSteps},
		{"WriteAtomic of nothing", func() error { return d.(blockdev.AtomicWriter).WriteAtomic(nil, 0) }, nil},
		{"Close", func() error { return d.Close() }, nil},
		{"Delete", func() error { return pool.Delete(ctx, testID) }, []string{
			"rename volumes/V trash/V", "fsyncdir trash", "fsyncdir volumes", "remove trash/V", "remove staging/V",
		}},
	}
	for _, s := range steps {
		p.trace = nil
		ok(t, s.call())
		got := strings.ReplaceAll(strings.Join(p.trace, "\n"), testID, "V")
		if diff := cmp.Diff(strings.Join(s.want, "\n"), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

// TestResizeTwice: after a Resize that failed half-way another one may ask
// for less, and no cut may then leave a record that promises more than there
// is.
func TestResizeAfterHalfResize(t *testing.T) {
	const small, middle, large = 1 << 20, 2 << 20, 3 << 20
	for n := 0; ; n++ {
		p := closedPool(t)
		pool, err := p.open()
		ok(t, err)
		p.Fail(2, unix.EIO, false) // the file has grown, the record has not
		wantError(t, "Resize", pool.Resize(t.Context(), testID, large), unix.EIO)
		p.Fail(n, unix.EIO, true)
		err = pool.Resize(t.Context(), testID, middle)
		reached := p.Reached()
		ok(t, pool.Close())
		for i, after := range p.AfterCut(t) {
			again, openErr := after.Open()
			ok(t, openErr)
			r, getErr := again.Get(t.Context(), testID)
			ok(t, getErr)
			if r.Size != small && r.Size != middle || err == nil && r.Size < middle {
				t.Errorf("step %d, place %d: %d bytes after Resize returned %v", n, i, r.Size, err)
			}
			ok(t, again.Close())
		}
		if !reached {
			if r, _ := os.Stat(p.path(dataPath(testID))); err == nil && r.Size() != middle {
				t.Errorf("the file has %d bytes", r.Size())
			}
			return
		}
	}
}

// A Resize that failed in its very last step has changed the record already;
// trying again must make that stable and tell the open device.
func TestResizeAgainAfterLastStep(t *testing.T) {
	p := closedPool(t)
	pool, err := p.open()
	ok(t, err)
	defer func() { ok(t, pool.Close()) }()
	d, err := pool.Open(t.Context(), testID)
	ok(t, err)
	defer func() { ok(t, d.Close()) }()
	const last = 11 // the fsync of the directory, see TestOrderOfEvents
	p.Fail(last, unix.EIO, false)
	wantError(t, "Resize", pool.Resize(t.Context(), testID, 2<<20), unix.EIO)
	if !p.Reached() || d.Size() != 1<<20 {
		t.Fatalf("the device has %d bytes after a Resize that failed", d.Size())
	}
	p.trace = nil
	ok(t, pool.Resize(t.Context(), testID, 2<<20))
	if n := len(p.trace); n == 0 || p.trace[n-1] != "fsyncdir "+volumePath(testID) {
		t.Errorf("the second Resize ended with %v", p.trace)
	}
	if d.Size() != 2<<20 {
		t.Errorf("the device has %d bytes", d.Size())
	}
}

// TestLongerFile: the record counts, at every start, and nothing is cut, by a
// Resize to less than the file has neither.
func TestLongerFile(t *testing.T) {
	p := closedPool(t)
	ok(t, os.Truncate(p.path(dataPath(testID)), 4<<20))
	for range 2 {
		pool, err := p.open()
		ok(t, err)
		r, err := pool.Get(t.Context(), testID)
		ok(t, err)
		if r.Size != 1<<20 || string(r.Meta) != `{"password":"planted"}` {
			t.Errorf("the record is of %d bytes", r.Size)
		}
		d, err := pool.Open(t.Context(), testID)
		ok(t, err)
		if d.Size() != 1<<20 {
			t.Errorf("the device has %d bytes", d.Size())
		}
		ok(t, errors.Join(d.Close(), pool.Close()))
	}
	pool, err := p.open()
	ok(t, err)
	defer func() { ok(t, pool.Close()) }()
	ok(t, pool.Resize(t.Context(), testID, 2<<20))
	st, err := os.Stat(p.path(dataPath(testID)))
	if r, _ := pool.Get(t.Context(), testID); err != nil || r.Size != 2<<20 || st.Size() != 4<<20 {
		t.Errorf("after Resize: record of %d bytes, file %v (%v)", r.Size, st, err)
	}
}

// TestFailedResizeIsTakenBack: wherever a Resize fails, without a power cut, the
// file is as long as the record on the disk says, and so it is at the next
// start; what fails is tried once more with success.
func TestFailedResizeIsTakenBack(t *testing.T) {
	const small, large = 1 << 20, 3 << 20
	failed := 0
	for n := 0; ; n++ {
		p := closedPool(t)
		pool, err := p.open()
		ok(t, err)
		p.Fail(n, unix.EIO, false)
		err = pool.Resize(t.Context(), testID, large)
		if !p.Reached() {
			ok(t, errors.Join(err, pool.Close()))
			break
		}
		failed++
		wantError(t, "Resize", err, unix.EIO)
		r, err := pool.Get(t.Context(), testID)
		ok(t, err)
		st, err := os.Stat(p.path(dataPath(testID)))
		ok(t, err)
		if r.Size != small && r.Size != large || st.Size() != r.Size {
			t.Errorf("step %d: record of %d bytes, file of %d", n, r.Size, st.Size())
		}
		ok(t, pool.Close())
		pool, err = p.open()
		ok(t, err)
		again, err := pool.Get(t.Context(), testID)
		if err != nil || again.Size != r.Size {
			t.Errorf("step %d: %d bytes at the next start, %d before (%v)", n, again.Size, r.Size, err)
		}
		ok(t, pool.Resize(t.Context(), testID, large))
		ok(t, pool.Close())
	}
	if failed < 8 {
		t.Errorf("only %d steps failed", failed)
	}
}

// TestResizeUnderDamage: a record that turned unreadable might promise more; the
// file is not cut.
func TestResizeUnderDamage(t *testing.T) {
	p := closedPool(t)
	pool, err := Open(p.dir, Options{Logger: silent, step: func(event, path string) error {
		if event == "rename" {
			ok(t, os.WriteFile(p.path(recordPath(testID)), []byte("{"), 0o600))
			return unix.EIO
		}
		return nil
	}})
	ok(t, err)
	defer func() { ok(t, pool.Close()) }()
	wantError(t, "Resize", pool.Resize(t.Context(), testID, 3<<20), unix.EIO)
	if st, err := os.Stat(p.path(dataPath(testID))); err != nil || st.Size() != 3<<20 {
		t.Errorf("the file was cut: %v, %v", st, err)
	}
}
