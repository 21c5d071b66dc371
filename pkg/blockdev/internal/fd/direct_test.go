package fd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

const testAlign = 512

// strict are the system calls of a file that was opened with O_DIRECT: they take what is
// aligned alone, and less of it than they are asked for, now and then.
func strict(t *testing.T) Calls {
	t.Helper()
	check := func(p []byte, off int64) []byte {
		if address := uintptr(unsafe.Pointer(&p[0])); address%testAlign != 0 || len(p)%testAlign != 0 || off%testAlign != 0 {
			t.Errorf("%d bytes at %#x for offset %d", len(p), address, off)
		}
		if len(p) > 64<<10 {
			p = p[:64<<10]
		}
		return p
	}
	return Calls{
		Pread:  func(fd int, p []byte, off int64) (int, error) { return unix.Pread(fd, check(p, off), off) },
		Pwrite: func(fd int, p []byte, off int64) (int, error) { return unix.Pwrite(fd, check(p, off), off) },
		WriteStable: func(fd int, p []byte, off int64) (int, error) {
			return unix.Pwrite(fd, check(p, off), off)
		},
		ReadNowait: func(int, []byte, int64) (int, error) {
			t.Error("a read of the page cache")
			return 0, unix.EAGAIN
		},
	}
}

// openDirect is open for direct I/O: where the file system of the test has none the calls
// still see to it that nothing else would be asked of it.
func openDirect(t *testing.T, size int64) *Device {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := New(f, Options{Name: "disk", Size: size, BlockSize: 512, Direct: testAlign, Calls: strict(t)})
	d.stable.flag = 0 // the file was not opened so
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Memory at any address, of any length in blocks, goes to the medium and comes back.
func TestDirect(t *testing.T) {
	const size = 2 << 20
	d := openDirect(t, size)
	memory := make([]byte, size+4096)
	for i := range memory {
		memory[i] = byte(i * 7)
	}
	for _, skew := range []int{0, 1, 8, 511, 512} {
		for _, n := range []int{512, 4096, 64<<10 + 512, bounceSize, bounceSize + 512, size} {
			p := memory[skew:][:n]
			if got, err := d.WriteAt(p, size-int64(n)); got != n || err != nil {
				t.Fatalf("write %d at skew %d: %d, %v", n, skew, got, err)
			}
			if err := d.WriteAtSync(p, 0); err != nil {
				t.Fatal(err)
			}
			for _, off := range []int64{0, size - int64(n)} {
				back := make([]byte, n+skew+1)[skew+1:]
				if got, err := d.ReadAt(back, off); got != n || err != nil || !bytes.Equal(back, p) {
					t.Fatalf("read %d at %d, skew %d: %d, %v", n, off, skew, got, err)
				}
			}
		}
	}
}

// What is made of parts of units is read and written, and nothing beside it changes; it is
// not read out of turn.
func TestDirectParts(t *testing.T) {
	const size = 1 << 20
	d := openDirect(t, size)
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i * 7)
	}
	if _, err := d.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	for i, r := range [][2]int{{0, 1}, {1, 510}, {511, 2}, {513, 511}, {1000, bounceSize}, {700, bounceSize + 5}, {size - 1, 1}, {3, size - 5}} {
		p := bytes.Repeat([]byte{byte(i + 1)}, r[1])
		copy(want[r[0]:], p)
		var err error
		if i%2 == 0 {
			_, err = d.WriteAt(p, int64(r[0]))
		} else {
			err = d.WriteAtSync(p, int64(r[0]))
		}
		if err != nil {
			t.Fatal(err)
		}
		clear(p)
		if n, err := d.ReadAt(p, int64(r[0])); n != r[1] || err != nil || !bytes.Equal(p, want[r[0]:][:n]) {
			t.Fatalf("%v: %d, %v", r, n, err)
		}
		whole := make([]byte, size)
		if _, err := d.ReadAt(whole, 0); err != nil || !bytes.Equal(whole, want) {
			t.Fatalf("%v changed what is beside it (%v)", r, err)
		}
	}
	if n, err := d.ReadAtNowait(make([]byte, 512), 0); n != 0 || !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("read without waiting: %d, %v", n, err)
	}
}

// Parts of one unit that are written at once are all there in the end, and what is beside
// them.
func TestDirectPartsAtOnce(t *testing.T) {
	d := openDirect(t, 4096)
	for round := range 20 {
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				if _, err := d.WriteAt(bytes.Repeat([]byte{byte(round + i)}, 8), int64(i)*8); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if _, err := d.WriteAt(bytes.Repeat([]byte{byte(round)}, 512), 512); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		got := make([]byte, 1024)
		if _, err := d.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		for i, b := range got[:512] {
			if b != byte(round+i/8) {
				t.Fatalf("round %d: byte %d is %d", round, i, b)
			}
		}
		if got[512] != byte(round) || got[1023] != byte(round) {
			t.Fatalf("round %d: the next unit has %d", round, got[512])
		}
	}
}

// More calls at once than there are buffers wait for each other.
func TestDirectAtOnce(t *testing.T) {
	d := openDirect(t, 1<<20)
	var wg sync.WaitGroup
	for i := range 4 * maxBounces {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i)}, 4097)[1:]
			off := int64(i) * 4096
			if _, err := d.WriteAt(p, off); err != nil {
				t.Error(err)
			}
			back := make([]byte, 4097)[1:]
			if _, err := d.ReadAt(back, off); err != nil || !bytes.Equal(back, p) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := len(d.bounces.free); n != maxBounces {
		t.Errorf("%d buffers of %d came back", n, maxBounces)
	}
}

// Parts of units, and whole ones that need a buffer, wait for each other and for buffers, and
// all get there.
func TestDirectPartsAndBuffers(t *testing.T) {
	d := openDirect(t, 1<<20)
	var wg sync.WaitGroup
	for i := range 8 * maxBounces {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte(i)}, 513)[1:]
			off := int64(i) * 1024
			for range 50 {
				if _, err := d.WriteAt(p, off+int64(i%2)); err != nil { // every other one is no whole unit
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(d.bounces.free); n != maxBounces {
		t.Errorf("%d buffers of %d came back", n, maxBounces)
	}
}

// A failure is told with what was done, and no buffer is lost to it.
func TestDirectFails(t *testing.T) {
	d := openDirect(t, 1<<20)
	d.o.Calls.Pwrite = func(int, []byte, int64) (int, error) { return 0, unix.ENOSPC }
	d.o.Calls.Pread = func(int, []byte, int64) (int, error) { return 0, unix.EIO }
	p := make([]byte, 513)[1:]
	if _, err := d.WriteAt(p, 0); !errors.Is(err, blockdev.ErrNoSpace) {
		t.Error(err)
	}
	if _, err := d.ReadAt(p, 0); !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	if n := len(d.bounces.free); n != maxBounces {
		t.Errorf("%d buffers of %d came back", n, maxBounces)
	}
}
