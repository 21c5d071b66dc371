package fd

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

func TestReadAtNowait(t *testing.T) {
	data := bytes.Repeat([]byte{7}, 8192)
	// answer lets a table play the kernel: bytes read, or an error.
	type answer struct {
		n   int
		err error
	}
	tests := []struct {
		name    string
		answers []answer
		n       int
		err     error
	}{
		{"all at once", []answer{{8192, nil}}, 8192, nil},
		{"in two parts", []answer{{4096, nil}, {4096, nil}}, 8192, nil},
		{"interrupted", []answer{{-1, unix.EINTR}, {8192, nil}}, 8192, nil},
		{"nothing in memory", []answer{{-1, unix.EAGAIN}}, 0, blockdev.ErrFetching},
		{"half in memory", []answer{{4096, nil}, {-1, unix.EAGAIN}}, 4096, blockdev.ErrFetching},
		{"not supported", []answer{{-1, unix.EOPNOTSUPP}}, 0, blockdev.ErrWouldBlock},
		{"medium error", []answer{{-1, unix.EIO}}, 0, unix.EIO},
		{"file cut", []answer{{4096, nil}, {0, nil}}, 4096, blockdev.ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			left := tt.answers
			d := open(t, Calls{ReadNowait: func(_ int, p []byte, off int64) (int, error) {
				a := left[0]
				left = left[1:]
				if a.n > 0 {
					copy(p[:a.n], data[off:])
				}
				return a.n, a.err
			}})
			p := make([]byte, 8192)
			n, err := d.ReadAtNowait(p, 0)
			if n != tt.n || !bytes.Equal(p[:n], data[:n]) {
				t.Fatalf("read %d bytes, want %d", n, tt.n)
			}
			if tt.err == nil && err != nil {
				t.Fatal(err)
			}
			if tt.err != nil {
				wantError(t, "ReadAtNowait", err, tt.err)
			}
			if len(left) != 0 {
				t.Fatalf("%d answers left", len(left))
			}
		})
	}
}

func TestNowaitUnsupportedIsRemembered(t *testing.T) {
	calls := 0
	d := open(t, Calls{ReadNowait: func(int, []byte, int64) (int, error) {
		calls++
		return -1, unix.EOPNOTSUPP
	}})
	for range 3 {
		_, err := d.ReadAtNowait(make([]byte, 512), 0)
		wantError(t, "ReadAtNowait", err, blockdev.ErrWouldBlock)
	}
	if calls != 1 {
		t.Fatalf("asked the kernel %d times, want once", calls)
	}
}

// What is not in memory is being read when a read without waiting has found that out: an
// older kernel is told to.
func TestNowaitFetches(t *testing.T) {
	before := nowaitFetches
	defer func() { nowaitFetches = before }()
	var off, length int64
	var err error
	calls := Calls{
		ReadNowait: func(_ int, p []byte, _ int64) (int, error) {
			if len(p) == 4096 {
				return -1, unix.EAGAIN
			}
			return len(p) - 4096, nil
		},
		ReadAhead: func(_ int, at, n int64) error {
			off, length = at, n
			return err
		},
	}
	for _, tt := range []struct {
		fetches     bool
		err         error
		off, length int64
		want        error
	}{
		{true, nil, 0, 0, blockdev.ErrFetching},
		{false, nil, 8192, 4096, blockdev.ErrFetching},
		{false, unix.EIO, 8192, 4096, blockdev.ErrWouldBlock},
	} {
		nowaitFetches = func() bool { return tt.fetches }
		off, length, err = 0, 0, tt.err
		_, got := open(t, calls).ReadAtNowait(make([]byte, 8192), 4096)
		if got != tt.want || off != tt.off || length != tt.length { //nolint:errorlint // bare
			t.Errorf("%+v: %v, after reading ahead %d bytes at %d", tt, got, length, off)
		}
	}
}

func TestKernelsThatFetch(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-18-amd64": true, "5.9.0": true, "5.10.209": true, "5.8.18": false, "4.18.0-553.el8": false, "10.0": true, "": false, "x": false,
	} {
		if fetchesSince(release) != want {
			t.Errorf("%q: %v", release, !want)
		}
	}
}

// What the page cache holds is read without waiting, on the real kernel.
func TestNowaitOnTheKernel(t *testing.T) {
	d := open(t, Calls{})
	want := bytes.Repeat([]byte{9}, 8192)
	if _, err := d.WriteAt(want, 4096); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	n, err := d.ReadAtNowait(got, 4096)
	if errors.Is(err, blockdev.ErrWouldBlock) && d.noNowait.Load() {
		return // this file system says that it never can: also an answer
	}
	if err != nil || n != len(want) || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, %v", n, err)
	}
}

// Few writes to the page cache of a file are in the kernel at once, the others wait outside;
// those past it do not.
func TestFewCachedWriters(t *testing.T) {
	const all = 3 * maxCachedWriters
	var within, most atomic.Int32
	write := func(d *Device, done func()) {
		d.o.Calls.Pwrite = func(_ int, p []byte, _ int64) (int, error) {
			n := within.Add(1)
			for before := most.Load(); n > before && !most.CompareAndSwap(before, n); before = most.Load() {
			}
			done()
			within.Add(-1)
			return len(p), nil
		}
		var wg sync.WaitGroup
		for range all {
			wg.Go(func() {
				if _, err := d.WriteAt(aligned(512), 0); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	write(open(t, Calls{}), func() {
		for range 100 {
			runtime.Gosched()
		}
	})
	if n := most.Load(); n > maxCachedWriters {
		t.Errorf("%d writes to the page cache at once", n)
	}
	var arrived atomic.Int32
	together := make(chan struct{})
	write(openDirect(t, testSize), func() {
		if arrived.Add(1) == all {
			close(together)
		}
		select {
		case <-together:
		case <-time.After(30 * time.Second):
			t.Error("writes past the page cache wait for each other")
		}
	})
}

// A long write reaches the page cache in pieces, and the medium past it whole.
func TestPiecesOfCachedWrites(t *testing.T) {
	for d, want := range map[*Device][]int{
		open(t, Calls{}):        {cachedPiece, cachedPiece, 512},
		openDirect(t, testSize): {2*cachedPiece + 512},
	} {
		var lengths []int
		d.o.Calls.Pwrite = func(fd int, p []byte, off int64) (int, error) {
			lengths = append(lengths, len(p))
			return unix.Pwrite(fd, p, off)
		}
		p := aligned(2*cachedPiece + 512)
		for i := range p {
			p[i] = byte(i / 512 * 3)
		}
		n, err := d.WriteAt(p, 1024)
		got := aligned(len(p))
		if _, readErr := d.ReadAt(got, 1024); n != len(p) || err != nil || readErr != nil || !bytes.Equal(got, p) {
			t.Errorf("%d bytes, %v, %v", n, err, readErr)
		}
		if !slices.Equal(lengths, want) {
			t.Errorf("in pieces of %d, want %d", lengths, want)
		}
	}
}
