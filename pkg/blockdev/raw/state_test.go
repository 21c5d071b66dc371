package raw

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// openKept opens a disk with a state file until the test ends.
func openKept(t *testing.T, o Options) blockdev.Device {
	t.Helper()
	d, err := Open(makeFile(t, 1<<20), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() }) // closed already, where the test did
	return d
}

// TestNoStateFile: without a place there is no keeper.
func TestNoStateFile(t *testing.T) {
	for _, ro := range []bool{false, true} {
		d := openKept(t, Options{ReadOnly: ro})
		if _, keeps := d.(blockdev.StateKeeper); keeps {
			t.Errorf("read-only %v: keeps a state nowhere", ro)
		}
		if _, atomic := d.(blockdev.AtomicWriter); atomic {
			t.Errorf("read-only %v: has no place for a journal and writes atomically", ro)
		}
	}
}

// TestStateFile: each kind of device keeps what it could do before.
func TestStateFile(t *testing.T) {
	for _, ro := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "unit.json")
		d := openKept(t, Options{ReadOnly: ro, StateFile: path})
		k := d.(blockdev.StateKeeper)
		if err := k.SetState(json.RawMessage(`{"n":1}`)); err != nil {
			t.Fatal(err)
		}
		if got, err := k.State(); string(got) != `{"n":1}` || err != nil {
			t.Errorf("state %s, %v", got, err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%v, %v", st, err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
			t.Errorf("%v beside the state", entries)
		}
		if d.(blockdev.StateLocator).StateLocation() != path {
			t.Error("the state lies elsewhere")
		}
		if err := k.SetState(nil); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removed, and yet %v", err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := k.State(); !errors.Is(err, blockdev.ErrClosed) {
			t.Errorf("State after Close: %v", err)
		}
	}
}

// TestKeptDevice: a medium without holes keeps a state too, and unmaps no more
// than before.
func TestKeptDevice(t *testing.T) {
	d, err := kept(openKept(t, Options{}).(thin).Device, "disk", filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	_, unmaps := d.(blockdev.Unmapper)
	_, keeps := d.(blockdev.StateKeeper)
	_, nowait := d.(blockdev.NowaitReader)
	_, atomic := d.(blockdev.AtomicWriter)
	if unmaps || !keeps || !nowait || !atomic {
		t.Errorf("unmaps %v, keeps %v, nowait %v, atomic %v", unmaps, keeps, nowait, atomic)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedStateFile(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `{"version":1,"state":{"reserv`, "newer": `{"version":2,"state":{}}`,
		"no state": `{"version":1}`, "unknown field": `{"version":1,"state":{},"more":1}`, "two": `{"version":1,"state":{}} {}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "unit.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := openKept(t, Options{StateFile: path}).(blockdev.StateKeeper).State()
			if !errors.Is(err, blockdev.ErrCorrupt) || got != nil || !strings.Contains(err.Error(), path+" is no state file") {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}

// TestStateFileCannotBeWritten says so, and the old state stays.
func TestStateFileCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "unit.json")
	k := openKept(t, Options{StateFile: path}).(blockdev.StateKeeper)
	if err := k.SetState(json.RawMessage(`1`)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := k.SetState(json.RawMessage(`2`)); err == nil {
		t.Error("SetState returned nil")
	}
	if got, err := k.State(); string(got) != `1` || err != nil {
		t.Errorf("state %s, %v", got, err)
	}
}
