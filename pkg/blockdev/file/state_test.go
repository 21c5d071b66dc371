package file

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// openKeeper opens the volume of a closed pool until the test ends.
func openKeeper(t *testing.T, p *place, step func(event, path string) error) blockdev.StateKeeper {
	t.Helper()
	pool := stuffedPool(t, p, step)
	d, err := pool.Open(t.Context(), testID)
	ok(t, err)
	t.Cleanup(func() { ok(t, errors.Join(d.Close(), pool.Close())) })
	return d.(blockdev.StateKeeper)
}

// TestDamagedState: what cannot be read is no state that is empty, and the
// error names the file and what to do.
func TestDamagedState(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `{"version":1,"state":{"reserv`, "newer": `{"version":2,"state":{}}`,
		"no state": `{"version":1}`, "unknown field": `{"version":1,"state":{},"more":1}`, "zeros": "\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			p := closedPool(t)
			path := p.path(unitPath(testID))
			ok(t, os.WriteFile(path, []byte(text), 0o600))
			got, err := openKeeper(t, p, nil).State()
			wantError(t, "State", err, blockdev.ErrCorrupt)
			if got != nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
}

// TestStateOnAFullFileSystem: what was kept once can be changed and removed
// where the file system has not one block to give.
func TestStateOnAFullFileSystem(t *testing.T) {
	isFull := false
	k := openKeeper(t, closedPool(t), func(event, path string) error {
		if isFull {
			return full(event, path)
		}
		return nil
	})
	ok(t, k.SetState(json.RawMessage(`{"n":0}`)))
	isFull = true
	for _, want := range []string{`{"n":1}`, `{"n":"two"}`, `{}`, ``, `{"n":3}`, ``} {
		ok(t, k.SetState(json.RawMessage(want)))
		if got, err := k.State(); err != nil || string(got) != want {
			t.Fatalf("state %s, %v; want %s", got, err, want)
		}
	}
}

// TestStateWithoutASpare says that there is no space, and changes nothing.
func TestStateWithoutASpare(t *testing.T) {
	k := openKeeper(t, closedPool(t), full)
	wantError(t, "SetState", k.SetState(json.RawMessage(`{}`)), blockdev.ErrNoSpace)
	if got, err := k.State(); err != nil || got != nil {
		t.Fatalf("state %s, %v", got, err)
	}
	ok(t, k.SetState(nil))
}
