package fd

import (
	"bytes"
	"errors"
	"testing"

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
		{"nothing in memory", []answer{{-1, unix.EAGAIN}}, 0, blockdev.ErrWouldBlock},
		{"half in memory", []answer{{4096, nil}, {-1, unix.EAGAIN}}, 4096, blockdev.ErrWouldBlock},
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
