package fd

import (
	"bytes"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

func TestCopyErrors(t *testing.T) {
	for _, tt := range []struct {
		errno unix.Errno
		want  error
	}{
		{unix.EXDEV, blockdev.ErrCannotCopy}, {unix.EINVAL, blockdev.ErrCannotCopy}, {unix.EOPNOTSUPP, blockdev.ErrCannotCopy},
		{unix.ENOSYS, blockdev.ErrCannotCopy}, {unix.ETXTBSY, blockdev.ErrCannotCopy}, {unix.EPERM, blockdev.ErrCannotCopy},
		{unix.ENOSPC, blockdev.ErrNoSpace}, {unix.EDQUOT, blockdev.ErrNoSpace}, {unix.EIO, unix.EIO},
	} {
		d := open(t, Calls{CopyRange: func(int, int64, int, int64, int) (int, error) { return -1, tt.errno }})
		wantError(t, tt.errno.Error(), d.CopyFrom(open(t, Calls{}), 0, 0, 4096), tt.want)
	}
	short := open(t, Calls{CopyRange: func(int, int64, int, int64, int) (int, error) { return 0, nil }})
	wantError(t, "a short source", short.CopyFrom(open(t, Calls{}), 0, 0, 4096), blockdev.ErrCannotCopy)
	wantError(t, "a stranger", short.CopyFrom(struct{ blockdev.Device }{short}, 0, 0, 4096), blockdev.ErrCannotCopy)
}

// The kernel may copy less than it was asked to, and may be interrupted.
func TestCopyInParts(t *testing.T) {
	calls := 0
	d := open(t, Calls{CopyRange: func(src int, srcOff int64, dst int, dstOff int64, n int) (int, error) {
		if calls++; calls%2 == 1 {
			return -1, unix.EINTR
		}
		return copyRange(src, srcOff, dst, dstOff, min(n, 1000))
	}})
	from := open(t, Calls{})
	want := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7}, 1000)
	if _, err := from.WriteAt(want, 4096); err != nil {
		t.Fatal(err)
	}
	if err := d.CopyFrom(from, 4096, 512, int64(len(want))); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := d.ReadAt(got, 512); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other data arrived (%v)", err)
	}
	if calls != 14 {
		t.Errorf("%d calls", calls)
	}
}

// Copies in both directions, and closes on both sides, end.
func TestCopyAndClose(t *testing.T) {
	for range 20 {
		a, b := open(t, Calls{}), open(t, Calls{})
		var wg sync.WaitGroup
		for _, pair := range [][2]*Device{{a, b}, {b, a}, {a, a}} {
			wg.Go(func() {
				for pair[0].CopyFrom(pair[1], 0, testSize/2, 512) == nil {
				}
			})
		}
		wg.Go(func() { _ = a.Close() })
		wg.Go(func() { _ = b.Close() })
		wg.Wait()
	}
}
