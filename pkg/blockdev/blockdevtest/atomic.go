package blockdevtest

import (
	"bytes"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func writeAtomic(d blockdev.Device, p []byte, off int64) error {
	return d.(blockdev.AtomicWriter).WriteAtomic(p, off)
}

// testAtomic: what is written is there, and there alone, after the device was
// opened anew too, though nobody has synced.
func (s DeviceSuite) testAtomic(t *testing.T) {
	d := s.Open(t, testSize, 512)
	limit := d.(blockdev.AtomicWriter).AtomicLimit()
	if limit < 64<<10 {
		t.Fatalf("the longest atomic write has %d bytes", limit)
	}
	want := pattern(1, testSize)
	write(t, d, 0, want)
	for i, r := range ranges {
		p := pattern(i+2, min(int(r.n), limit))
		ok(t, writeAtomic(d, p, r.off))
		copy(want[r.off:], p)
		equal(t, d, 0, want)
	}
	d = s.reopened(t, d)
	equal(t, d, 0, want)
	ok(t, writeAtomic(d, pattern(99, 4096), 4096)) // in what is there already
	equal(t, d, 4096, pattern(99, 4096))
}

// testAtomicBounds: what leaves the device or is too long changes nothing.
func (s DeviceSuite) testAtomicBounds(t *testing.T) {
	d := s.Open(t, testSize, 512)
	limit := d.(blockdev.AtomicWriter).AtomicLimit()
	want := pattern(1, testSize)
	write(t, d, 0, want)
	for _, r := range []struct{ off, n int64 }{
		{testSize, 1}, {testSize - 512, 1024}, {testSize + 512, 512}, {-1, 1}, {-512, 1024},
		{testSize + 1, 0}, {math.MinInt64, 512}, {math.MaxInt64, 1}, {math.MaxInt64 - 511, 512},
	} {
		wantError(t, "WriteAtomic", writeAtomic(d, pattern(2, int(r.n)), r.off), blockdev.ErrOutOfRange)
	}
	wantError(t, "WriteAtomic of too much", writeAtomic(d, make([]byte, limit+1), 0), blockdev.ErrInvalid)
	equal(t, d, 0, want)
	ok(t, d.Close())
	wantError(t, "WriteAtomic after Close", writeAtomic(d, make([]byte, 512), 0), blockdev.ErrClosed)
}

// testAtomicConcurrency: of many that write the same range the last one is there
// whole, and what others write elsewhere is, too.
func (s DeviceSuite) testAtomicConcurrency(t *testing.T) {
	const size, workers, each = 96 << 10, 6, 8
	d := s.Open(t, testSize, 512)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			own := int64(i+2) * size
			for n := range each {
				if err := writeAtomic(d, bytes.Repeat([]byte{byte(i + 1)}, size), 1000); err != nil {
					t.Error(err)
				}
				if _, err := d.WriteAt(pattern(i+n, size), own); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := make([]byte, size)
	_, err := d.ReadAt(got, 1000)
	ok(t, err)
	if got[0] == 0 || !bytes.Equal(got, bytes.Repeat(got[:1], size)) {
		t.Error("two atomic writes are mixed")
	}
	for i := range workers {
		equal(t, d, int64(i+2)*size, pattern(i+each-1, size))
	}
}

// testAtomicAfterLoss: where a Sync has failed nothing is promised any more, and
// nothing is written.
func (s DeviceSuite) testAtomicAfterLoss(t *testing.T) {
	d := s.Open(t, testSize, 512)
	write(t, d, 0, pattern(1, 4096))
	s.FailSync(t, d)
	if d.Sync() == nil {
		t.Fatal("the Sync that lost writes returned nil")
	}
	wantError(t, "WriteAtomic", writeAtomic(d, pattern(2, 4096), 8192), blockdev.ErrLostWrites)
	equal(t, d, 8192, make([]byte, 4096))
	if r, recovers := d.(blockdev.Recoverer); recovers {
		ok(t, r.Recover())
		ok(t, writeAtomic(d, pattern(2, 4096), 8192))
		equal(t, d, 8192, pattern(2, 4096))
	}
}

// atomicChange is the change of a power cut that writes atomically, twice, the
// second time over a part of the first.
const atomicChange = "WriteAtomic"

const (
	firstAtomic, firstAtomicSize   = 3000, 40000
	secondAtomic, secondAtomicSize = 20480, 8192
)

// atomicContents are what volume 1 may hold in the middle, the last first.
func atomicContents() [][]byte {
	old := pattern(1, oldSize)
	first := bytes.Clone(old)
	copy(first[firstAtomic:], pattern(21, firstAtomicSize))
	second := bytes.Clone(first)
	copy(second[secondAtomic:], pattern(22, secondAtomicSize))
	return [][]byte{second, first, old}
}

// writeTwice, tried once more, ends in the same.
func writeTwice(t *testing.T, p blockdev.Pool) error {
	t.Helper()
	d, err := p.Open(t.Context(), id(1))
	ok(t, err)
	if capabilities(d)&WritesAtomic != 0 {
		err = writeAtomic(d, pattern(21, firstAtomicSize), firstAtomic)
		if err == nil {
			err = writeAtomic(d, pattern(22, secondAtomicSize), secondAtomic)
		}
	}
	ok(t, d.Close())
	return err
}

// examineContent looks at all of what was in volume 1 from the start.
func (c change) examineContent(t *testing.T, p blockdev.Pool, acknowledged bool) {
	t.Helper()
	d, err := p.Open(t.Context(), id(1))
	ok(t, err)
	defer d.Close()
	allowed := [][]byte{pattern(1, oldSize)}
	if c.name == atomicChange && capabilities(d)&WritesAtomic != 0 {
		allowed = atomicContents()
	}
	if acknowledged {
		allowed = allowed[:1]
	}
	got := make([]byte, oldSize)
	_, err = d.ReadAt(got, 0)
	ok(t, err)
	if !slices.ContainsFunc(allowed, func(want []byte) bool { return bytes.Equal(got, want) }) {
		t.Fatalf("acknowledged %v, and the content is none of the %d that it may be", acknowledged, len(allowed))
	}
}
