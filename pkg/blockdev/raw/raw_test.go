package raw

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/blockdevtest"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"golang.org/x/sys/unix"
)

func makeFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDevice(t *testing.T) {
	t.Run("cached", func(t *testing.T) { testDevice(t, false, 1) })
	t.Run("direct", func(t *testing.T) { testDevice(t, true, 4096) })
}

func testDevice(t *testing.T, direct bool, copyUnit int64) {
	var path string
	var fail bool
	state := filepath.Join(t.TempDir(), "unit.json")
	open := func(t *testing.T, blockSize int) blockdev.Device {
		fail = false
		d, err := Open(path, Options{BlockSize: blockSize, StateFile: state, Direct: direct, calls: fd.Calls{Fdatasync: func(n int) error {
			if fail {
				fail = false
				return unix.EIO
			}
			return unix.Fdatasync(n)
		}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() }) // closed already, where the test did
		return d
	}
	blockdevtest.DeviceSuite{
		Open: func(t *testing.T, size int64, blockSize int) blockdev.Device {
			path, state = makeFile(t, size), filepath.Join(t.TempDir(), "unit.json")
			return open(t, blockSize)
		},
		Has:      blockdevtest.All &^ blockdevtest.Marks,
		CopyUnit: copyUnit,
		FailSync: func(*testing.T, blockdev.Device) { fail = true },
		Reopen: func(t *testing.T, d blockdev.Device) blockdev.Device {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, d.BlockSize())
		},
	}.Run(t)
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		o          Options
		want       error
	}{
		{"nothing", filepath.Join(dir, "nothing"), Options{}, fs.ErrNotExist},
		{"no path", "", Options{}, fs.ErrNotExist},
		{"a directory", dir, Options{}, blockdev.ErrInvalid},
		{"a pipe", pipe, Options{}, blockdev.ErrInvalid},
		{"a character device", "/dev/null", Options{}, blockdev.ErrInvalid},
		{"an empty file", makeFile(t, 0), Options{}, blockdev.ErrInvalid},
		{"less than a block", makeFile(t, 4095), Options{BlockSize: 4096}, blockdev.ErrInvalid},
		{"block size 8192", makeFile(t, 8192), Options{BlockSize: 8192}, blockdev.ErrInvalid},
		{"block size -1", makeFile(t, 4096), Options{BlockSize: -1}, blockdev.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Open(tt.path, tt.o); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestChooseBlockSize(t *testing.T) {
	tests := []struct{ asked, medium, want int }{
		{0, 1, 512}, {0, 512, 512}, {0, 4096, 4096}, {512, 512, 512}, {4096, 512, 4096}, {4096, 1, 4096},
		{512, 4096, 0}, {0, 8192, 0}, {1024, 1, 1024}, {2048, 512, 2048}, {0, 2048, 2048}, {1024, 2048, 0}, {3072, 1, 0}, {256, 1, 0},
	}
	for _, tt := range tests {
		got, err := chooseBlockSize(tt.asked, tt.medium)
		if got != tt.want || (err == nil) != (tt.want != 0) {
			t.Errorf("chooseBlockSize(%d, %d) = %d, %v, want %d", tt.asked, tt.medium, got, err, tt.want)
		}
	}
}

// A file's last part of a block is neither served nor touched, and looking
// for holes changes nothing.
func TestOddLength(t *testing.T) {
	path := makeFile(t, 0)
	want := bytes.Repeat([]byte{7}, 4096+300)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != 4096 {
		t.Errorf("size %d, want 4096", d.Size())
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("Open changed the file: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	path := makeFile(t, 1<<20)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.WriteAt(make([]byte, 512), 0); !errors.Is(err, unix.EROFS) {
		t.Errorf("WriteAt: %v, want EROFS", err)
	}
	if n, err := d.ReadAt(make([]byte, 512), 0); n != 512 || err != nil {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
	if _, ok := d.(blockdev.Unmapper); ok {
		t.Error("a read-only device offers to unmap")
	}
}

func TestLocks(t *testing.T) {
	tests := []struct {
		first, second bool // read-only
		busy          bool
	}{{true, true, false}, {true, false, true}, {false, true, true}, {false, false, true}}
	for _, tt := range tests {
		path := makeFile(t, 1<<20)
		d, err := Open(path, Options{ReadOnly: tt.first})
		if err != nil {
			t.Fatal(err)
		}
		second, err := Open(path, Options{ReadOnly: tt.second})
		if errors.Is(err, blockdev.ErrBusy) != tt.busy || (err != nil) != tt.busy {
			t.Errorf("%+v: %v", tt, err)
		}
		if err == nil {
			_ = second.Close()
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if d, err = Open(path, Options{}); err != nil {
			t.Fatalf("after Close: %v", err)
		}
		_ = d.Close()
	}
}

// A file that is open for direct I/O is read and written past the page cache, in blocks
// that its file system takes.
func TestDirectFile(t *testing.T) {
	path := makeFile(t, 1<<20)
	d, err := Open(path, Options{Direct: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	block := int64(d.BlockSize())
	if block%512 != 0 || d.(blockdev.CachedWriter).WritesToCache() {
		t.Errorf("blocks of %d bytes, to the cache: %v", block, d.(blockdev.CachedWriter).WritesToCache())
	}
	want := bytes.Repeat([]byte{7}, int(block))
	if _, err := d.WriteAt(want, block); err != nil {
		t.Fatal(err)
	}
	// Somebody else's cache has it, and ours has not.
	other, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(other[block:2*block], want) {
		t.Errorf("the file has not what was written (%v)", err)
	}
	if _, err := d.(blockdev.NowaitReader).ReadAtNowait(want, block); !errors.Is(err, blockdev.ErrWouldBlock) {
		t.Errorf("read from memory: %v", err)
	}
}

// With a root nothing else can be opened, by dots or links, and what is below can.
func TestRoot(t *testing.T) {
	dir := t.TempDir()
	root, outside := filepath.Join(dir, "root"), filepath.Join(dir, "outside.img")
	if err := os.MkdirAll(filepath.Join(root, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{outside, filepath.Join(root, "a.img"), filepath.Join(root, "sub", "b.img")} {
		if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"in": "sub/b.img", "out": "../outside.img", "abs": outside, "up": "..", "self": "/proc/self/cwd"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]error{
		root + "/a.img": nil, root + "/sub/../a.img": nil, root + "/in": nil,
		outside: blockdev.ErrInvalid, root + "/../outside.img": blockdev.ErrInvalid, root + "/out": blockdev.ErrInvalid, root + "/abs": blockdev.ErrInvalid,
		root + "/up/outside.img": blockdev.ErrInvalid, root + "/self": blockdev.ErrInvalid, root: blockdev.ErrInvalid, root + "x": blockdev.ErrInvalid,
		root + "/none": fs.ErrNotExist,
	} {
		d, err := Open(path, Options{Root: root})
		if !errors.Is(err, want) || want != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if err == nil {
			if _, err := d.WriteAt(make([]byte, 512), 0); err != nil {
				t.Error(err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
