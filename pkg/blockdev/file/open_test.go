package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

const otherID = "6a8e1c1e-70c5-4b8c-a5b5-0b8f0ce6a1d3"

// closedPool makes a pool with two volumes, one of them marked, and closes it.
func closedPool(t *testing.T) *place {
	t.Helper()
	p := newPlace(t)
	pool, err := p.open()
	ok(t, err)
	for _, id := range []string{testID, otherID} {
		ok(t, pool.Create(t.Context(), blockdev.Record{ID: id, Size: 1 << 20, BlockSize: 512, Meta: json.RawMessage(`{"password":"planted"}`)}))
	}
	d, err := pool.Open(t.Context(), testID)
	ok(t, err)
	ok(t, d.(blockdev.VolatileMarker).SetVolatileMark(blockdev.VolatileMark{BootID: "b"}))
	ok(t, d.Close())
	ok(t, pool.Close())
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// Nobody else may read what lies in a pool that we made.
func TestPermissions(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	p := closedPool(t)
	ok(t, filepath.WalkDir(p.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s is %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	}))
}

// One damaged volume is refused by name; nothing of it is changed and the
// other one is served.
func TestDamage(t *testing.T) {
	replace := func(name, content string) func(*testing.T, *place) {
		return func(t *testing.T, p *place) { ok(t, os.WriteFile(p.path(name), []byte(content), 0o600)) }
	}
	edit := func(from, to string) func(*testing.T, *place) {
		return func(t *testing.T, p *place) {
			b, err := os.ReadFile(p.path(recordPath(testID)))
			ok(t, err)
			if !bytes.Contains(b, []byte(from)) {
				t.Fatalf("%s holds no %s", b, from)
			}
			replace(recordPath(testID), strings.Replace(string(b), from, to, 1))(t, p)
		}
	}
	remove := func(name string) func(*testing.T, *place) {
		return func(t *testing.T, p *place) { ok(t, os.RemoveAll(p.path(name))) }
	}
	linkTo := func(name, to string) func(*testing.T, *place) {
		return func(t *testing.T, p *place) {
			ok(t, os.RemoveAll(p.path(name)))
			ok(t, os.Symlink(to, p.path(name)))
		}
	}
	truncate := func(size int64) func(*testing.T, *place) {
		return func(t *testing.T, p *place) { ok(t, os.Truncate(p.path(dataPath(testID)), size)) }
	}
	tests := map[string]func(*testing.T, *place){
		"no record":            remove(recordPath(testID)),
		"empty record":         replace(recordPath(testID), ""),
		"no JSON":              replace(recordPath(testID), "{"),
		"binary":               replace(recordPath(testID), "\x00\xff\x7f"),
		"null":                 replace(recordPath(testID), "null"),
		"huge":                 replace(recordPath(testID), strings.Repeat(" ", maxJSON+1)),
		"newer version":        edit(`"version":1`, `"version":2`),
		"no version":           edit(`"version":1,`, ``),
		"unknown field":        edit(`"version":1`, `"version":1,"thin":true`),
		"two values":           edit("\n", "{}"),
		"another volume's":     edit(testID, otherID),
		"path as id":           edit(testID, "../../etc"),
		"no size":              edit(`"size":1048576`, `"size":0`),
		"negative size":        edit(`"size":1048576`, `"size":-1048576`),
		"odd size":             edit(`"size":1048576`, `"size":1048575`),
		"block size":           edit(`"blockSize":512`, `"blockSize":513`),
		"larger than its file": edit(`"size":1048576`, `"size":2097152`),
		"no data":              remove(dataPath(testID)),
		"data cut":             truncate(1<<20 - 512),
		"data cut to nothing":  truncate(0),
		"data of half a block": truncate(1<<20 + 100),
		"data is a link out":   linkTo(dataPath(testID), "/dev/zero"),
		"data is a link in":    linkTo(dataPath(testID), "../"+otherID+"/data"),
		"record is a link in":  linkTo(recordPath(testID), "../"+otherID+"/record.json"),
		"volume is a link in":  linkTo(volumePath(testID), otherID),
		"volume is a link out": linkTo(volumePath(testID), "/"),
		"data is a directory": func(t *testing.T, p *place) {
			remove(dataPath(testID))(t, p)
			ok(t, os.Mkdir(p.path(dataPath(testID)), 0o700))
		},
		"record is a pipe": func(t *testing.T, p *place) {
			remove(recordPath(testID))(t, p)
			ok(t, unix.Mkfifo(p.path(recordPath(testID)), 0o600))
		},
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			p := closedPool(t)
			damage(t, p)
			before := snapshot(t, p.path(volumePath(testID)))
			testRefused(t, p)
			if after := snapshot(t, p.path(volumePath(testID))); !slices.Equal(before, after) {
				t.Errorf("the damaged volume was changed:\n%v\n%v", before, after)
			}
		})
	}
}

// TestDeleteCorrupt: what was moved away by hand can be deleted, without a
// restart, and made anew.
func TestDeleteCorrupt(t *testing.T) {
	p := closedPool(t)
	ok(t, os.WriteFile(p.path(recordPath(testID)), []byte("{"), 0o600))
	pool, err := p.open()
	ok(t, err)
	defer func() { ok(t, pool.Close()) }()
	wantError(t, "Delete", pool.Delete(t.Context(), testID), blockdev.ErrCorrupt)
	away := filepath.Join(t.TempDir(), "away")
	ok(t, os.Rename(p.path(volumePath(testID)), away))
	ok(t, pool.Delete(t.Context(), testID))
	wantError(t, "Delete again", pool.Delete(t.Context(), testID), blockdev.ErrNotFound)
	if len(pool.Refused()) != 0 {
		t.Errorf("still refused: %v", pool.Refused())
	}
	ok(t, pool.Create(t.Context(), blockdev.Record{ID: testID, Size: 4096, BlockSize: 512}))
	if _, err := os.Stat(filepath.Join(away, "data")); err != nil {
		t.Errorf("what was moved away is gone: %v", err)
	}
}

// snapshot lists what lies under a path.
func snapshot(t *testing.T, root string) (list []string) {
	t.Helper()
	ok(t, filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		line := path + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(b)
		}
		list = append(list, line)
		return nil
	}))
	return list
}

func testRefused(t *testing.T, p *place) {
	ctx := t.Context()
	pool, err := p.open()
	ok(t, err)
	defer func() { ok(t, pool.Close()) }()
	_, err = pool.Get(ctx, testID)
	wantError(t, "Get", err, blockdev.ErrCorrupt)
	if !strings.Contains(err.Error(), testID) || strings.Contains(err.Error(), "planted") || errors.Is(err, blockdev.ErrInvalid) {
		t.Errorf("Get: %v", err)
	}
	_, err = pool.Open(ctx, testID)
	wantError(t, "Open", err, blockdev.ErrCorrupt)
	wantError(t, "SetMeta", pool.SetMeta(ctx, testID, nil), blockdev.ErrCorrupt)
	wantError(t, "Resize", pool.Resize(ctx, testID, 2<<20), blockdev.ErrCorrupt)
	err = pool.Delete(ctx, testID)
	wantError(t, "Delete", err, blockdev.ErrCorrupt)
	if err != nil && !strings.Contains(err.Error(), "move "+p.path(volumePath(testID))+" away") {
		t.Errorf("Delete: %v", err)
	}
	wantError(t, "Create", pool.Create(ctx, blockdev.Record{ID: testID, Size: 512, BlockSize: 512}), blockdev.ErrExists)
	wantError(t, "Refused", pool.Refused()[testID], blockdev.ErrCorrupt)

	records, err := pool.List(ctx)
	ok(t, err)
	if len(records) != 1 || records[0].ID != otherID {
		t.Errorf("List: %v", records)
	}
	d, err := pool.Open(ctx, otherID)
	ok(t, err)
	ok(t, d.Close())
	if _, err := pool.Capacity(ctx); err != nil {
		t.Error(err)
	}
}

func TestUnusablePlaces(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, p *place)
		want error
		says string
	}{
		{"a directory with something else", func(t *testing.T, p *place) {
			ok(t, os.Mkdir(p.dir, 0o700))
			ok(t, os.WriteFile(p.path("holiday.jpg"), nil, 0o600))
		}, blockdev.ErrInvalid, "holiday.jpg"},
		{"a file", func(t *testing.T, p *place) { ok(t, os.WriteFile(p.dir, nil, 0o600)) }, blockdev.ErrInvalid, "no directory"},
		{"volumes without pool.json", func(t *testing.T, p *place) {
			*p = *closedPool(t)
			ok(t, os.Remove(p.path(poolName)))
		}, blockdev.ErrCorrupt, "pool.json"},
		{"empty pool.json", func(t *testing.T, p *place) {
			*p = *closedPool(t)
			ok(t, os.WriteFile(p.path(poolName), nil, 0o600))
		}, blockdev.ErrCorrupt, "pool.json"},
		{"pool.json with a path as id", func(t *testing.T, p *place) {
			*p = *closedPool(t)
			ok(t, os.WriteFile(p.path(poolName), []byte(`{"version":1,"id":"../x"}`), 0o600))
		}, blockdev.ErrCorrupt, "pool.json"},
		{"newer pool.json", func(t *testing.T, p *place) {
			*p = *closedPool(t)
			ok(t, os.WriteFile(p.path(poolName), []byte(`{"version":9,"id":"`+testID+`"}`), 0o600))
		}, blockdev.ErrCorrupt, "version 9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			tt.make(t, p)
			_, err := p.Open()
			wantError(t, "Open", err, tt.want)
			if !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), p.dir) {
				t.Errorf("%v names neither %q nor the pool", err, tt.says)
			}
		})
	}
}

// A file system of its own has a lost+found; parents are made.
func TestUsablePlaces(t *testing.T) {
	for _, name := range []string{"lost+found", "deeper/still"} {
		p := placeAt(filepath.Join(t.TempDir(), "mnt"))
		if name == "lost+found" {
			ok(t, os.MkdirAll(p.path(name), 0o700))
		} else {
			p.dir = p.path(name)
		}
		pool, err := p.open()
		ok(t, err)
		ok(t, pool.Close())
	}
}

func TestBusyNamesThePath(t *testing.T) {
	p := newPlace(t)
	pool, err := p.open()
	ok(t, err)
	_, err = p.open()
	wantError(t, "the second opener", err, blockdev.ErrBusy)
	if !strings.Contains(err.Error(), p.path(lockName)) {
		t.Errorf("%v does not name %s", err, p.path(lockName))
	}
	ok(t, pool.Close())
	pool, err = p.open()
	ok(t, err)
	ok(t, pool.Close())
}

// What an interrupted call left is removed, and said.
func TestCleanUp(t *testing.T) {
	p := closedPool(t)
	left := []string{
		"staging/" + testID, "trash/" + otherID,
		recordPath(testID) + temporarySuffix, volatilePath(testID) + temporarySuffix, unitPath(testID) + temporarySuffix,
	}
	for _, name := range left[:2] {
		ok(t, os.Mkdir(p.path(name), 0o700))
		ok(t, os.WriteFile(p.path(name+"/data"), []byte("x"), 0o600))
	}
	for _, name := range left[2:] {
		ok(t, os.WriteFile(p.path(name), []byte("x"), 0o600))
	}
	var log bytes.Buffer
	pool, err := Open(p.dir, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ok(t, err)
	defer func() { ok(t, pool.Close()) }()
	for _, name := range left {
		if _, err := os.Lstat(p.path(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
		if !strings.Contains(log.String(), "level=INFO") || !strings.Contains(log.String(), name) {
			t.Errorf("the log does not tell of %s:\n%s", name, &log)
		}
	}
	records, err := pool.List(t.Context())
	ok(t, err)
	if len(records) != 2 {
		t.Errorf("%d volumes are left", len(records))
	}
}

// A damaged mark must not read as none: that would hide lost writes.
func TestDamagedMark(t *testing.T) {
	p := closedPool(t)
	ok(t, os.WriteFile(p.path(volatilePath(testID)), []byte("{"), 0o600))
	pool, err := p.open()
	ok(t, err)
	defer func() { ok(t, pool.Close()) }()
	d, err := pool.Open(t.Context(), testID)
	ok(t, err)
	defer func() { ok(t, d.Close()) }()
	_, err = d.(blockdev.VolatileMarker).VolatileMark()
	wantError(t, "VolatileMark", err, blockdev.ErrCorrupt)
}

// A full file system must not keep its pool from opening.
func TestFullPoolOpens(t *testing.T) {
	p := closedPool(t)
	pool, err := Open(p.dir, Options{Logger: silent, step: func(event, path string) error {
		if event == "create" && path == "staging/probe" {
			return unix.ENOSPC
		}
		return nil
	}})
	ok(t, err)
	defer func() { ok(t, pool.Close()) }()
	if pool.punch == 0 {
		t.Error("holes are not offered on a full file system")
	}
	full := &disk{root: pool.disk.root, step: func(string, string) error { return unix.ENOSPC }}
	pool.disk = full
	wantError(t, "Create", pool.Create(t.Context(), blockdev.Record{ID: "6a8e1c1e-70c5-4b8c-a5b5-0b8f0ce6a1d4", Size: 512, BlockSize: 512}), blockdev.ErrNoSpace)
	wantError(t, "Resize", pool.Resize(t.Context(), testID, 2<<20), blockdev.ErrNoSpace)
	wantError(t, "SetMeta", pool.SetMeta(t.Context(), testID, nil), blockdev.ErrNoSpace)
}
