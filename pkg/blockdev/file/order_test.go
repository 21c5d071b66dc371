package file

import (
	"encoding/json"
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
		{"SetMeta", func() error { return pool.SetMeta(ctx, testID, json.RawMessage(`1`)) }, replace("record.json")},
		{"Resize", func() error { return pool.Resize(ctx, testID, 8192) },
			append([]string{"truncate volumes/V/data", "fsync volumes/V/data"}, replace("record.json")...)},
		{"Resize to the current size", func() error { return pool.Resize(ctx, testID, 8192) }, nil},
		{"Open", func() (err error) { d, err = pool.Open(ctx, testID); return err }, nil},
		{"SetVolatileMark", func() error {
			return d.(blockdev.VolatileMarker).SetVolatileMark(blockdev.VolatileMark{BootID: "b"})
		}, replace("volatile.json")},
		{"SetVolatileMark to zero", func() error {
			return d.(blockdev.VolatileMarker).SetVolatileMark(blockdev.VolatileMark{})
		}, []string{"remove volumes/V/volatile.json", "fsyncdir volumes/V"}},
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
			if r.Size != small && r.Size != middle && r.Size != large || err == nil && r.Size < middle {
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
