package fd

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

func TestSyncErrorIsSticky(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT} {
		fail := true
		d := open(t, Calls{Fdatasync: func(int) error {
			if fail {
				fail = false
				return errno
			}
			return nil
		}})
		err := d.Sync()
		wantError(t, "the failed Sync", err, blockdev.ErrLostWrites)
		wantError(t, "the failed Sync", err, errno)
		wantError(t, "a later Sync", d.Sync(), blockdev.ErrLostWrites)
		wantError(t, "a later WriteAtSync", d.WriteAtSync(make([]byte, 512), 0), blockdev.ErrLostWrites)
	}
}

// TestRecover: a device whose medium works again is believed again, after what
// the kernel still shows of lost writes was dropped; one whose medium does not
// stays as it was.
func TestRecover(t *testing.T) {
	var events []string
	var failing int
	d := open(t, Calls{
		Fdatasync: func(int) error {
			events = append(events, "fdatasync")
			if failing > 0 {
				failing--
				return unix.EIO
			}
			return nil
		},
		DropCache: func(int) error { events = append(events, "drop"); return nil },
	})
	failing = 3
	wantError(t, "Sync", d.Sync(), blockdev.ErrLostWrites)
	wantError(t, "Recover of a bad medium", d.Recover(), blockdev.ErrLostWrites)
	wantError(t, "Sync after it", d.Sync(), blockdev.ErrLostWrites)
	events = nil
	failing = 1 // a loss that was not reported yet
	if err := d.Recover(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(events, " "); got != "fdatasync fdatasync drop" {
		t.Errorf("Recover did %s", got)
	}
	if err := errors.Join(d.Sync(), d.WriteAtSync(make([]byte, 512), 0)); err != nil {
		t.Errorf("after Recover: %v", err)
	}
	_ = d.Close()
	wantError(t, "Recover after Close", d.Recover(), blockdev.ErrClosed)
}

// TestRecoverDropsTheCache asks the kernel what it still has in memory. On a
// file system that is nothing but memory there is nothing to drop.
func TestRecoverDropsTheCache(t *testing.T) {
	d := open(t, Calls{})
	var st unix.Statfs_t
	if err := unix.Fstatfs(d.fd, &st); err != nil {
		t.Fatal(err)
	}
	p := bytes.Repeat([]byte{7}, 64<<10)
	if _, err := d.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, d.fd, len(p)); n == 0 {
		t.Error("nothing was cached")
	}
	if err := d.Recover(); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, d.fd, len(p)); n > 0 && st.Type != unix.TMPFS_MAGIC {
		t.Errorf("%d pages are cached", n)
	}
	got := make([]byte, len(p))
	if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) {
		t.Errorf("what was stable is not there: %v", err)
	}
}

// resident is how many pages of the first n bytes of a file are in memory. Unlike a
// read, asking brings none there.
func resident(t *testing.T, fd, n int) int {
	t.Helper()
	m, err := unix.Mmap(fd, 0, n, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	pages := make([]byte, n/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(n), uintptr(unsafe.Pointer(&pages[0])))
	if err := unix.Munmap(m); err != nil || errno != 0 {
		t.Fatal(errno, err)
	}
	there := 0
	for _, p := range pages {
		there += int(p & 1)
	}
	return there
}

func TestSyncInterrupted(t *testing.T) {
	calls := 0
	d := open(t, Calls{Fdatasync: func(int) error {
		calls++
		if calls == 1 {
			return unix.EINTR
		}
		return nil
	}})
	if err := d.Sync(); err != nil || calls != 2 {
		t.Fatalf("%v after %d calls", err, calls)
	}
}

// A Sync that returns nil had a whole fdatasync to itself after the writes
// before it, however many callers share it.
func TestSyncCoversEarlierWrites(t *testing.T) {
	var written, covered, inside atomic.Int64
	d := open(t, Calls{Fdatasync: func(int) error {
		if inside.Add(1) != 1 {
			t.Error("two fdatasync calls at once")
		}
		covered.Store(written.Load())
		inside.Add(-1)
		return nil
	}})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				mine := written.Add(1)
				if err := d.Sync(); err != nil {
					t.Error(err)
				}
				if c := covered.Load(); c < mine {
					t.Errorf("write %d returned from Sync, stable are %d", mine, c)
				}
			}
		})
	}
	wg.Wait()
}

// Of many Syncs at once around one lost page, none that began before the
// loss was reported may say that all is well afterwards.
func TestConcurrentSyncsAllFail(t *testing.T) {
	const callers = 8
	var reported atomic.Bool
	entered, leave := make(chan struct{}), make(chan struct{})
	d := open(t, Calls{Fdatasync: func(int) error {
		if reported.Swap(true) {
			return nil // the kernel reports a loss once
		}
		close(entered)
		<-leave
		return unix.EIO
	}})
	errs := make(chan error, callers)
	go func() { errs <- d.Sync() }()
	<-entered
	for range callers - 1 {
		go func() { errs <- d.Sync() }()
	}
	close(leave)
	for range callers {
		wantError(t, "Sync", <-errs, blockdev.ErrLostWrites)
	}
}

func TestWriteAtSync(t *testing.T) {
	want := bytes.Repeat([]byte{5}, 8192)
	tests := []struct {
		name  string
		first error // of pwritev2
		sync  error // of fdatasync
		syncs int32
		want  error
	}{
		{"supported", nil, nil, 0, nil},
		{"interrupted", unix.EINTR, nil, 0, nil},
		{"not supported", unix.EOPNOTSUPP, nil, 1, nil},
		{"lost, and the disk is well again", unix.EIO, nil, 1, nil},
		{"lost", unix.EIO, unix.EIO, 1, blockdev.ErrLostWrites},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var syncs, writes int32
			d := open(t, Calls{
				Fdatasync: func(int) error { syncs++; return tt.sync },
				WriteStable: func(fd int, p []byte, off int64) (int, error) {
					writes++
					if writes == 1 && tt.first != nil {
						return -1, tt.first
					}
					return writeStable(fd, p[:min(len(p), 4096)], off)
				},
			})
			err := d.WriteAtSync(want, 4096)
			if tt.want != nil {
				wantError(t, "WriteAtSync", err, tt.want)
				return
			}
			got := make([]byte, len(want))
			if _, rerr := d.ReadAt(got, 4096); err != nil || rerr != nil || !bytes.Equal(got, want) {
				t.Fatalf("write %v, read %v", err, rerr)
			}
			if syncs != tt.syncs {
				t.Fatalf("%d fdatasync calls, want %d", syncs, tt.syncs)
			}
		})
	}
}

// Stable writes use descriptions of their own, never the one that Sync asks.
func TestStableWritesHaveTheirOwnHandles(t *testing.T) {
	var wg sync.WaitGroup
	var inUse sync.Map
	var d *Device
	d = open(t, Calls{WriteStable: func(fd int, p []byte, off int64) (int, error) {
		if fd == d.fd {
			t.Error("a stable write on the descriptor that Sync uses")
		}
		if _, taken := inUse.LoadOrStore(fd, true); taken {
			t.Error("two stable writes on one handle")
		}
		defer inUse.Delete(fd)
		return writeStable(fd, p, off)
	}})
	for i := range 3 * maxHandles {
		wg.Go(func() {
			if err := d.WriteAtSync(make([]byte, 512), int64(i)*512); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
