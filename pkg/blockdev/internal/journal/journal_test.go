package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/mem"
	"golang.org/x/sys/unix"
)

const deviceSize = 1 << 20

// medium is a Device whose writes in place fail as told.
type medium struct {
	*mem.Device
	// fails are the errors of the next WriteAtSyncs, each after half of the
	// bytes; nil lets one through.
	fails      []error
	reserve    error
	recover    error
	lost       bool
	recoveries int
}

func (m *medium) WriteAtSync(p []byte, off int64) error {
	if m.lost {
		return blockdev.ErrLostWrites
	}
	var err error
	if len(m.fails) > 0 {
		err, m.fails = m.fails[0], m.fails[1:]
	}
	if err != nil {
		p = p[:len(p)/2]
	}
	_, wrote := m.WriteAt(p, off)
	return errors.Join(err, wrote)
}

func (m *medium) Reserve(int64, int64) error { return m.reserve }
func (m *medium) Lose()                      { m.lost = true }
func (m *medium) Lost() bool                 { return m.lost }

func (m *medium) Recover() error {
	m.recoveries++
	if m.recover == nil {
		m.lost = false
	}
	return m.recover
}

// rig is a medium that holds old, and a journal on it.
type rig struct {
	*testing.T
	medium  *medium
	place   Place
	journal *Journal
}

var (
	old = bytes.Repeat([]byte("old."), deviceSize/4)
	now = bytes.Repeat([]byte("NEW!"), 5000)
)

const at = 12345

func newRig(t *testing.T) *rig {
	t.Helper()
	disk, err := mem.New(deviceSize, 512)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, medium: &medium{Device: disk}}
	if _, err := disk.WriteAt(old, 0); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "journal")
	r.place = Place{
		Owner: "disk 1", Name: "journal",
		Open:   func() (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) },
		Create: func() error { return os.WriteFile(path, make([]byte, Size), 0o600) },
	}
	r.open()
	return r
}

func (r *rig) open() {
	r.Helper()
	j, err := Open(r.medium, r.place)
	if err != nil {
		r.Fatal(err)
	}
	r.journal = j
	r.Cleanup(func() { _ = j.Close() }) // closed already, where the test did
}

// restart is the death of the process, and the next one.
func (r *rig) restart() {
	r.Helper()
	r.place.Before = nil
	r.medium.lost, r.medium.fails, r.medium.reserve = false, nil, nil
	r.open()
}

// failAt fails the n-th step of that kind from now on, once.
func (r *rig) failAt(step Step, n int, err error) {
	r.journal.place.Before = func(s Step) error {
		if s == step {
			n--
		}
		if s == step && n == 0 {
			return err
		}
		return nil
	}
}

func (r *rig) write(want error) {
	r.Helper()
	if err := r.journal.WriteAtomic(now, at); !errors.Is(err, want) || (err == nil) != (want == nil) {
		r.Fatalf("WriteAtomic: %v, want %v", err, want)
	}
}

// holds says whether the medium holds all of the new data, or none; a mix fails
// the test.
func (r *rig) holds(whole bool) {
	r.Helper()
	got, want := make([]byte, deviceSize), bytes.Clone(old)
	if whole {
		copy(want[at:], now)
	}
	if _, err := r.medium.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		r.Fatalf("the medium does not hold what it should (new: %v), %v", whole, err)
	}
}

var errMedium = errors.New("the medium failed")

// TestFullMedium: whichever step finds the medium full, nothing has changed, and
// the device goes on.
func TestFullMedium(t *testing.T) {
	full := fmt.Errorf("full: %w", blockdev.ErrNoSpace)
	for name, fill := range map[string]func(*rig){
		"no room for the journal": func(r *rig) {
			create := r.journal.place.Create
			r.journal.place.Create = func() error { r.journal.place.Create = create; return unix.ENOSPC }
		},
		"no room for the range":     func(r *rig) { r.medium.reserve = full },
		"no room for the entry":     func(r *rig) { r.failAt(WriteEntry, 1, unix.ENOSPC) },
		"no room to make it stable": func(r *rig) { r.failAt(SyncEntry, 1, unix.ENOSPC) },
		"no room in place":          func(r *rig) { r.medium.fails = []error{full} },
		"no room, nothing written":  func(r *rig) { r.failAt(WriteStable, 1, full) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			fill(r)
			r.write(blockdev.ErrNoSpace)
			r.holds(false)
			if r.medium.lost {
				t.Error("a full medium ended the promises of the device")
			}
			r.restart()
			r.holds(false)
			r.write(nil)
			r.holds(true)
		})
	}
}

// TestFailingMedium: where what is on the disk is not known, Syncs promise
// nothing until Recover, which leaves the old or the new data; so does a restart
// in its place.
func TestFailingMedium(t *testing.T) {
	for name, x := range map[string]struct {
		fail func(*rig)
		new  bool // after Recover, or a restart
	}{
		"the write in place, and the undo": {func(r *rig) { r.medium.fails = []error{errMedium, errMedium} }, true},
		"the write in place lost pages":    {func(r *rig) { r.medium.fails = []error{blockdev.ErrLostWrites} }, true},
		"making the entry invalid":         {func(r *rig) { r.failAt(WriteEntry, 2, errMedium) }, true},
		"making that stable":               {func(r *rig) { r.failAt(SyncEntry, 2, errMedium) }, true},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart %v", name, restart), func(t *testing.T) {
				r := newRig(t)
				x.fail(r)
				r.write(blockdev.ErrLostWrites)
				if !r.medium.lost {
					t.Fatal("Syncs go on")
				}
				r.write(blockdev.ErrLostWrites)
				if restart {
					r.restart()
				} else if err := r.journal.Recover(); err != nil {
					t.Fatal(err)
				}
				r.holds(x.new)
				r.write(nil)
				r.holds(true)
			})
		}
	}
}

// TestFailingEntry: an entry that could not be made stable, and not be taken
// back, either.
func TestFailingEntry(t *testing.T) {
	r := newRig(t)
	r.journal.place.Before = func(s Step) error {
		if s == SyncEntry {
			return errMedium
		}
		return nil
	}
	r.write(blockdev.ErrLostWrites)
	r.holds(false)
	if err := r.journal.Recover(); !errors.Is(err, blockdev.ErrLostWrites) {
		t.Errorf("Recover of a medium that still fails: %v", err)
	}
	r.journal.place.Before = nil
	if err := r.journal.Recover(); err != nil || r.medium.lost {
		t.Fatal(err)
	}
	r.holds(false)
	r.write(nil)
	r.holds(true)
}

// TestRecoverOfTheDevice: a device that cannot recover keeps the doubt; one that
// never had a doubt is only passed on to.
func TestRecoverOfTheDevice(t *testing.T) {
	r := newRig(t)
	if err := r.journal.Recover(); err != nil || r.medium.recoveries != 1 {
		t.Errorf("%v, %d recoveries", err, r.medium.recoveries)
	}
	r.medium.fails = []error{errMedium, errMedium}
	r.write(blockdev.ErrLostWrites)
	r.medium.recover = errMedium
	if err := r.journal.Recover(); !errors.Is(err, errMedium) {
		t.Errorf("Recover: %v", err)
	}
	r.write(blockdev.ErrLostWrites)
	r.medium.recover = nil
	if err := r.journal.Recover(); err != nil {
		t.Fatal(err)
	}
	r.holds(true)
}

// file is an entry as it lies in the journal's file.
func file(owner string, p []byte, off int64) []byte {
	head := entryHead(owner, p, off)
	b := append(head[:], p...)
	return append(b, make([]byte, Size-len(b))...)
}

func TestEntry(t *testing.T) {
	whole := file("o", now, at)
	tests := []struct {
		name   string
		change func(b []byte) []byte
		valid  bool
		err    error
	}{
		{"whole", func(b []byte) []byte { return b }, true, nil},
		{"without the zeros behind", func(b []byte) []byte { return b[:headBytes+len(now)] }, true, nil},
		{"empty file", func([]byte) []byte { return nil }, false, nil},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }, false, nil},
		{"no data", func(b []byte) []byte { return file("o", nil, at) }, false, nil},
		{"another version", func(b []byte) []byte { b[versionAt+3] = 2; return b }, false, blockdev.ErrCorrupt},
		{"another owner", func([]byte) []byte { return file("p", now, at) }, false, blockdev.ErrCorrupt},
		{"behind the end", func([]byte) []byte { return file("o", now, deviceSize-len64(now)+1) }, false, blockdev.ErrCorrupt},
		{"before the start", func([]byte) []byte { return file("o", now, -1) }, false, blockdev.ErrCorrupt},
		{"at the end", func([]byte) []byte { return file("o", now, deviceSize-len64(now)) }, true, nil},
		{"longer than the file", func(b []byte) []byte { b[lengthAt] = 0xFF; return b }, false, nil},
	}
	for _, tt := range tests {
		p, _, err := readEntry(bytes.NewReader(tt.change(bytes.Clone(whole))), "o", deviceSize)
		if (p != nil) != tt.valid || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
			t.Errorf("%s: %d bytes, %v", tt.name, len(p), err)
		}
	}
	p, off, err := readEntry(bytes.NewReader(whole), "o", deviceSize)
	if !bytes.Equal(p, now) || off != at || err != nil {
		t.Errorf("%d bytes at %d, %v", len(p), off, err)
	}
}

func len64(b []byte) int64 { return int64(len(b)) }

// TestTornEntry: an entry cut off at any byte, with what was in the file before
// behind it, is none; and so is one with any bit of its head wrong.
func TestTornEntry(t *testing.T) {
	data := bytes.Repeat([]byte("NEW!"), 40)
	before, whole := file("o", bytes.Repeat([]byte("then"), 50), 512), file("o", data, at)
	clear(before[:headBytes]) // made invalid
	for _, behind := range [][]byte{before, nil} {
		for n := range headBytes + len(data) {
			if n > headEnd && n < headBytes-1 {
				continue // zeros, as what was there before
			}
			torn := append(bytes.Clone(whole[:n]), behind[min(n, len(behind)):]...)
			if p, _, err := readEntry(bytes.NewReader(torn), "o", deviceSize); p != nil || err != nil {
				t.Fatalf("torn after %d bytes: %d bytes, %v", n, len(p), err)
			}
		}
	}
	for bit := range 8 * headEnd {
		wrong := bytes.Clone(whole)
		wrong[bit/8] ^= 1 << (bit % 8)
		if p, _, err := readEntry(bytes.NewReader(wrong), "o", deviceSize); p != nil || err != nil && bit/8 < versionAt {
			t.Errorf("bit %d wrong: %d bytes, %v", bit, len(p), err)
		}
	}
}

// TestOpenRefuses: an entry that cannot be replayed keeps the device from being
// opened, and a read-only one is told of it.
func TestOpenRefuses(t *testing.T) {
	r := newRig(t)
	r.failAt(WriteEntry, 2, errMedium)
	r.write(blockdev.ErrLostWrites)
	other := r.place
	other.Owner = "disk 2"
	if _, err := Open(r.medium, other); !errors.Is(err, blockdev.ErrCorrupt) {
		t.Errorf("of another device: %v", err)
	}
	if pending, err := Pending(r.place, deviceSize); !pending || err != nil {
		t.Errorf("pending %v, %v", pending, err)
	}
	r.medium.lost, r.medium.fails = false, []error{errMedium}
	if _, err := Open(r.medium, r.place); !errors.Is(err, errMedium) {
		t.Errorf("of a medium that fails: %v", err)
	}
	r.restart()
	r.holds(true)
	if pending, err := Pending(r.place, deviceSize); pending || err != nil {
		t.Errorf("pending %v, %v", pending, err)
	}
	r.place.Open = func() (*os.File, error) { return nil, unix.EACCES }
	if _, err := Pending(r.place, deviceSize); !errors.Is(err, unix.EACCES) {
		t.Errorf("unreadable: %v", err)
	}
	if _, err := Open(r.medium, r.place); !errors.Is(err, unix.EACCES) {
		t.Errorf("unreadable: %v", err)
	}
}

// TestShortFile: one that a power cut left half-made is made anew.
func TestShortFile(t *testing.T) {
	r := newRig(t)
	create := r.place.Create
	f, err := r.place.Open()
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v, %v", f, err)
	}
	if err := create(); err != nil {
		t.Fatal(err)
	}
	half, err := r.place.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(half.Truncate(Size/2), half.Close()); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.write(nil)
	r.holds(true)
}
