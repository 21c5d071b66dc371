package raw

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/journal"
	"golang.org/x/sys/unix"
)

// interrupted makes a disk whose process died in the middle of an atomic write of
// 8192 bytes at 512: an entry beside the state file, and half of it in place.
func interrupted(t *testing.T) (path string, o Options) {
	t.Helper()
	path, o = makeFile(t, 1<<20), Options{StateFile: filepath.Join(t.TempDir(), "unit.json")}
	d, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	j := d.(keptThin).journal
	if err := j.WriteAtomic([]byte("first"), 0); err != nil { // makes the file
		t.Fatal(err)
	}
	dead, cut := journalPlace(path, o.StateFile+journalSuffix, os.O_RDWR), false
	dead.Before = func(s journal.Step) error {
		if cut = cut || s == journal.WriteStable; cut {
			return unix.EIO
		}
		return nil
	}
	again, err := journal.Open(d.(keptThin).Device, dead)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.WriteAtomic(bytes.Repeat([]byte("whole"), 8192/5), 512); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if _, err := d.WriteAt([]byte("whole"), 512); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	return path, o
}

func TestInterruptedWriteIsCompleted(t *testing.T) {
	path, o := interrupted(t)
	o.ReadOnly = true
	if _, err := Open(path, o); !errors.Is(err, blockdev.ErrCorrupt) {
		t.Errorf("half of a write is shown: %v", err)
	}
	o.ReadOnly = false
	d, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	want := append([]byte("first"), make([]byte, 507)...)
	want = append(want, bytes.Repeat([]byte("whole"), 8192/5)...)
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("not completed: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	o.ReadOnly = true
	d, err = Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	_ = d.Close()
}

// TestJournalOfAnother: another disk that is given the same state file is not
// written to.
func TestJournalOfAnother(t *testing.T) {
	_, o := interrupted(t)
	other := makeFile(t, 1<<20)
	if _, err := Open(other, o); !errors.Is(err, blockdev.ErrCorrupt) {
		t.Errorf("opened: %v", err)
	}
	if b, err := os.ReadFile(other); err != nil || !bytes.Equal(b, make([]byte, 1<<20)) {
		t.Errorf("another disk was written to (%v)", err)
	}
}

// TestNoPlaceForTheJournal: it fails, with nothing changed and nothing left.
func TestNoPlaceForTheJournal(t *testing.T) {
	dir := t.TempDir()
	d := openKept(t, Options{StateFile: filepath.Join(dir, "unit.json")})
	if err := os.Mkdir(filepath.Join(dir, "unit.json.journal.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.(blockdev.AtomicWriter).WriteAtomic([]byte("x"), 0); err == nil {
		t.Error("written without a journal")
	}
	got := make([]byte, 1)
	if _, err := d.ReadAt(got, 0); err != nil || got[0] != 0 {
		t.Errorf("%q, %v", got, err)
	}
}
