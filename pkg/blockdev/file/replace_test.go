package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// full is what a full file system says to every new file, and nothing else:
// what lies in blocks that are there can be written.
func full(event, path string) error {
	if event == "create" && !strings.HasSuffix(path, lockName) {
		return unix.ENOSPC
	}
	return nil
}

// stuffedPool opens the place with its file system full.
func stuffedPool(t *testing.T, p *place, step func(event, path string) error) *Pool {
	t.Helper()
	pool, err := Open(p.dir, Options{Logger: silent, step: step})
	ok(t, err)
	return pool
}

// usedPool is a closed pool with a volume that was attached and written to.
func usedPool(t *testing.T) *place {
	p := closedPool(t)
	pool, err := p.open()
	ok(t, err)
	ok(t, pool.SetMeta(t.Context(), testID, json.RawMessage(`{"attached":"planted"}`)))
	d, err := pool.Open(t.Context(), testID)
	ok(t, err)
	ok(t, d.(blockdev.VolatileMarker).SetVolatileMark(blockdev.VolatileMark{BootID: "before"}))
	ok(t, d.(blockdev.VolatileMarker).SetVolatileMark(blockdev.VolatileMark{}))
	ok(t, errors.Join(d.Close(), pool.Close()))
	return p
}

// TestFullFileSystem: a record can be changed, a volume marked and deleted, as
// often as it takes, where the file system has not one block to give.
func TestFullFileSystem(t *testing.T) {
	p := usedPool(t)
	pool := stuffedPool(t, p, full)
	defer func() { ok(t, pool.Close()) }()
	d, err := pool.Open(t.Context(), testID)
	ok(t, err)
	marker := d.(blockdev.VolatileMarker)
	for _, meta := range []string{`{"n":1}`, `{"n":"two"}`, `{}`} {
		ok(t, pool.SetMeta(t.Context(), testID, json.RawMessage(meta)))
		r, err := pool.disk.readRecord(testID)
		if err != nil || string(r.Meta) != meta {
			t.Fatalf("the record says %s (%v), want %s", r.Meta, err, meta)
		}
		want := blockdev.VolatileMark{BootID: meta}
		ok(t, marker.SetVolatileMark(want))
		if got, err := marker.VolatileMark(); err != nil || got.BootID != meta {
			t.Fatalf("mark %v, %v", got, err)
		}
		ok(t, marker.SetVolatileMark(blockdev.VolatileMark{}))
		if got, err := marker.VolatileMark(); err != nil || !got.IsZero() {
			t.Fatalf("mark %v, %v", got, err)
		}
	}
	old, err := os.ReadFile(p.path(recordPath(testID) + spareSuffix))
	if err != nil || len(bytes.Trim(old, "\x00")) > 0 {
		t.Errorf("the spare holds %q (%v)", old, err)
	}
	ok(t, d.Close())
	ok(t, pool.Delete(t.Context(), testID))
}

// TestFullFileSystemWithoutASpare says so, and changes nothing.
func TestFullFileSystemWithoutASpare(t *testing.T) {
	p := closedPool(t)
	pool := stuffedPool(t, p, full)
	defer func() { ok(t, pool.Close()) }()
	before, err := pool.Get(t.Context(), testID)
	ok(t, err)
	wantError(t, "SetMeta", pool.SetMeta(t.Context(), testID, json.RawMessage(`{"n":1}`)), blockdev.ErrNoSpace)
	if r, err := pool.Get(t.Context(), testID); err != nil || string(r.Meta) != string(before.Meta) {
		t.Errorf("%s, %v", r.Meta, err)
	}
}

// TestPowerCutOnAFullFileSystem cuts the power before every step of a change
// that goes by the spare, right after another one that did.
func TestPowerCutOnAFullFileSystem(t *testing.T) {
	const first, second = `{"n":1}`, `{"n":2}`
	for n, reached := 0, true; reached; n++ {
		p := usedPool(t)
		pool := stuffedPool(t, p, func(event, path string) error {
			if err := full(event, path); err != nil {
				return err
			}
			return p.step(event, path)
		})
		ok(t, pool.SetMeta(t.Context(), testID, json.RawMessage(first)))
		p.Fail(n, unix.EIO, true)
		err := pool.SetMeta(t.Context(), testID, json.RawMessage(second))
		reached = p.Reached()
		ok(t, pool.Close())
		for i, after := range p.AfterCut(t) {
			again, openErr := after.Open()
			ok(t, openErr)
			r, getErr := again.Get(t.Context(), testID)
			ok(t, getErr)
			if m := string(r.Meta); m != second && (m != first || err == nil) {
				t.Errorf("step %d, place %d: %s after SetMeta returned %v", n, i, m, err)
			}
			ok(t, again.Close())
		}
		if reached == (err == nil) {
			t.Errorf("step %d: reached %t, %v", n, reached, err)
		}
	}
}

// TestSpareGrowsWithTheRecord: what is in use can always be written back.
func TestSpareGrowsWithTheRecord(t *testing.T) {
	p := usedPool(t)
	pool, err := p.open()
	ok(t, err)
	large := json.RawMessage(`"` + strings.Repeat("x", 3*spareUnit) + `"`)
	ok(t, pool.SetMeta(t.Context(), testID, large))
	ok(t, pool.Close())
	st, err := os.Stat(filepath.Join(p.dir, recordPath(testID)+spareSuffix))
	if err != nil || st.Size() < int64(len(large)) || blocksOf(st)*512 < int64(len(large)) {
		t.Errorf("the spare has %d bytes (%v)", st.Size(), err)
	}
}
