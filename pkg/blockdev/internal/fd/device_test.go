package fd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

const testSize = 1 << 20

// open makes a device of a fresh sparse file of testSize bytes.
func open(t *testing.T, c Calls) *Device {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "data"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(testSize); err != nil {
		t.Fatal(err)
	}
	d := New(f, Options{Name: "disk", Size: testSize, BlockSize: 512, Granularity: 4096, Calls: c})
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func wantError(t *testing.T, call string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: %v, want %v", call, got, want)
	}
}

func TestErrno(t *testing.T) {
	for _, e := range []error{unix.ENOSPC, unix.EDQUOT, unix.EFBIG} {
		if got := Errno(e); !errors.Is(got, blockdev.ErrNoSpace) || !errors.Is(got, e) {
			t.Errorf("%v became %v", e, got)
		}
	}
	for _, e := range []error{unix.EIO, unix.EROFS, unix.EINVAL} {
		if got := Errno(e); errors.Is(got, blockdev.ErrNoSpace) || !errors.Is(got, e) {
			t.Errorf("%v became %v", e, got)
		}
	}
}

func TestFullMedium(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := New(f, Options{Name: "full", Size: testSize, BlockSize: 512})
	defer d.Close()
	_, err = d.WriteAt(make([]byte, 512), 0)
	wantError(t, "WriteAt", err, blockdev.ErrNoSpace)
	wantError(t, "WriteAtSync", d.WriteAtSync(make([]byte, 512), 0), blockdev.ErrNoSpace)
	wantError(t, "WriteZeroes", d.WriteZeroes(0, 512), blockdev.ErrNoSpace)
}

func TestFileCutFromOutside(t *testing.T) {
	d := open(t, Calls{})
	if err := d.file.Truncate(testSize / 2); err != nil {
		t.Fatal(err)
	}
	_, err := d.ReadAt(make([]byte, 4096), testSize-4096)
	wantError(t, "ReadAt", err, blockdev.ErrCorrupt)
}

func TestClosed(t *testing.T) {
	d := open(t, Calls{})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 512)
	_, err := d.ReadAt(p, 0)
	wantError(t, "ReadAt", err, blockdev.ErrClosed)
	_, err = d.ReadAtNowait(p, 0)
	wantError(t, "ReadAtNowait", err, blockdev.ErrClosed)
	_, err = d.WriteAt(p, 0)
	wantError(t, "WriteAt", err, blockdev.ErrClosed)
	wantError(t, "WriteAtSync", d.WriteAtSync(p, 0), blockdev.ErrClosed)
	wantError(t, "Sync", d.Sync(), blockdev.ErrClosed)
	wantError(t, "Punch", d.Punch(0, 512), blockdev.ErrClosed)
	wantError(t, "WriteZeroes", d.WriteZeroes(0, 512), blockdev.ErrClosed)
	wantError(t, "Close", d.Close(), blockdev.ErrClosed)
}

// Close must wait for a call that is inside the kernel.
func TestCloseWaits(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	var inside bool // written before leave is closed, read after Close
	d := open(t, Calls{Fdatasync: func(int) error {
		close(entered)
		<-leave
		inside = false
		return nil
	}})
	inside = true
	synced := make(chan error, 1)
	go func() { synced <- d.Sync() }()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	select {
	case err := <-closed:
		t.Fatalf("Close returned %v while a Sync was in flight", err)
	default:
	}
	close(leave)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if inside {
		t.Fatal("Close returned while a Sync was in flight")
	}
	if err := <-synced; err != nil {
		t.Fatal(err)
	}
}

func TestNoAllocations(t *testing.T) {
	d := open(t, Calls{})
	p := make([]byte, 4096)
	check := func(name string, want float64, f func()) {
		t.Helper()
		if got := testing.AllocsPerRun(20, f); got > want {
			t.Errorf("%s: %v allocations per call, want %v", name, got, want)
		}
	}
	check("WriteAt", 0, func() { _, _ = d.WriteAt(p, 4096) })
	check("ReadAt", 0, func() { _, _ = d.ReadAt(p, 4096) })
	check("ReadAtNowait", 0, func() { _, _ = d.ReadAtNowait(p, 4096) })
	check("WriteAtSync", 0, func() { _ = d.WriteAtSync(p, 4096) })
	check("Sync", 0, func() { _ = d.Sync() })
}
