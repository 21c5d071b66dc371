package blockdevtest

import (
	"errors"
	"math"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// copies are ranges that CopyFrom is tried with, aligned and not.
var copies = []struct{ src, dst, n int64 }{
	{0, 0, 4096}, {0, testSize / 2, testSize / 2}, {4096, 65536, 131072}, {512, 1024, 512},
	{1, 0, 1}, {511, 70000, 3}, {12345, 1 << 20, 100001}, {testSize - 512, 0, 512}, {0, testSize, 0}, {7, 9, 0},
}

// testCopy copies between two devices and within one, from data and from holes.
func (s DeviceSuite) testCopy(t *testing.T) {
	src, dst := s.Open(t, testSize, 512), s.Open(t, testSize, 512)
	from := pattern(5, testSize/2)
	write(t, src, 0, from) // the second half is a hole
	from = append(from, make([]byte, testSize-len(from))...)
	want := pattern(6, testSize)
	write(t, dst, 0, want)
	for _, c := range copies {
		err := dst.(blockdev.RangeCopier).CopyFrom(src, c.src, c.dst, c.n)
		if errors.Is(err, blockdev.ErrCannotCopy) && (c.src|c.dst|c.n)%max(s.CopyUnit, 1) != 0 {
			continue
		}
		ok(t, err)
		copy(want[c.dst:], from[c.src:c.src+c.n])
	}
	equal(t, dst, 0, want)
	equal(t, src, 0, from)
	ok(t, dst.(blockdev.RangeCopier).CopyFrom(dst, 0, testSize/2, testSize/2))
	copy(want[testSize/2:], want[:testSize/2])
	s.testCopyOverlap(t, dst, want)
	ok(t, dst.Sync())
	equal(t, s.reopened(t, dst), 0, want)
}

// testCopyOverlap: ranges of one device that overlap are copied right or refused.
func (s DeviceSuite) testCopyOverlap(t *testing.T, d blockdev.Device, want []byte) {
	t.Helper()
	for _, c := range []struct{ src, dst, n int64 }{{0, 4096, 65536}, {4096, 0, 65536}, {512, 512, 512}, {1, 0, 2}} {
		err := d.(blockdev.RangeCopier).CopyFrom(d, c.src, c.dst, c.n)
		if errors.Is(err, blockdev.ErrCannotCopy) {
			continue
		}
		ok(t, err)
		copy(want[c.dst:], want[c.src:c.src+c.n])
	}
	equal(t, d, 0, want)
}

func (s DeviceSuite) testCopyBounds(t *testing.T) {
	src, dst := s.Open(t, testSize/2, 512), s.Open(t, testSize, 512)
	want := pattern(3, testSize)
	write(t, dst, 0, want)
	for _, c := range []struct{ src, dst, n int64 }{
		{testSize / 2, 0, 1}, {testSize/2 - 1, 0, 2}, {0, testSize, 1}, {0, testSize - 511, 512}, {-1, 0, 1}, {0, -1, 1},
		{0, 0, -1}, {0, 0, testSize/2 + 1}, {1, 0, math.MaxInt64}, {0, 1, math.MaxInt64}, {math.MaxInt64, math.MaxInt64, 1},
	} {
		wantError(t, "CopyFrom", dst.(blockdev.RangeCopier).CopyFrom(src, c.src, c.dst, c.n), blockdev.ErrOutOfRange)
	}
	copier := dst.(blockdev.RangeCopier)
	wantError(t, "within", copier.CopyFrom(dst, 0, testSize-511, 512), blockdev.ErrOutOfRange)
	wantError(t, "within", copier.CopyFrom(dst, testSize-511, 0, 512), blockdev.ErrOutOfRange)
	equal(t, dst, 0, want)
}

func (s DeviceSuite) testCopyClosed(t *testing.T) {
	open, closed := s.Open(t, testSize, 512), s.Open(t, testSize, 512)
	ok(t, closed.Close())
	wantError(t, "from a closed one", open.(blockdev.RangeCopier).CopyFrom(closed, 0, 0, 512), blockdev.ErrClosed)
	wantError(t, "into a closed one", closed.(blockdev.RangeCopier).CopyFrom(open, 0, 0, 512), blockdev.ErrClosed)
	wantError(t, "within a closed one", closed.(blockdev.RangeCopier).CopyFrom(closed, 0, 4096, 512), blockdev.ErrClosed)
}
