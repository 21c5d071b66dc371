package blockdevtest

import (
	"bytes"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// ranges are offsets and lengths within testSize, aligned and not.
var ranges = []struct{ off, n int64 }{
	{0, 512}, {0, 4096}, {0, testSize}, {0, 0}, {testSize, 0},
	{testSize - 512, 512}, {testSize - 1, 1},
	{1, 1}, {511, 2}, {4095, 2}, {65535, 3}, {100, 100000}, {12345, 1 << 20},
	{4096, 4096}, {65536, 131072}, {4097, 8190},
}

func (s DeviceSuite) testReadWrite(t *testing.T) {
	d := s.Open(t, testSize, 512)
	want := make([]byte, testSize)
	for i, r := range ranges {
		p := pattern(i, int(r.n))
		write(t, d, r.off, p)
		copy(want[r.off:], p)
		equal(t, d, r.off, p)
	}
	ok(t, d.Sync())
	equal(t, d, 0, want)
}

// testBounds: whatever leaves the device fails and touches nothing, sums that
// overflow 64 bits included.
func (s DeviceSuite) testBounds(t *testing.T) {
	d := s.Open(t, testSize, 512)
	want := pattern(1, testSize)
	write(t, d, 0, want)
	for _, r := range []struct{ off, n int64 }{
		{testSize, 1}, {testSize - 1, 2}, {testSize - 512, 1024}, {testSize + 512, 512},
		{testSize + 1, 0}, {-1, 1}, {-512, 1024}, {-1, 0}, {math.MinInt64, 512},
		{math.MaxInt64, 1}, {math.MaxInt64 - 511, 512}, {math.MaxInt64 - 1, 4096}, {0, testSize + 1},
	} {
		untouched := pattern(2, int(r.n))
		p := bytes.Clone(untouched)
		n, err := d.ReadAt(p, r.off)
		wantError(t, "ReadAt", err, blockdev.ErrOutOfRange)
		if n != 0 || !bytes.Equal(p, untouched) {
			t.Errorf("ReadAt(%d, %d) read %d bytes", r.off, r.n, n)
		}
		_, err = d.WriteAt(p, r.off)
		wantError(t, "WriteAt", err, blockdev.ErrOutOfRange)
		boundsOfExtras(t, d, r.off, p)
	}
	boundsOfRanges(t, d)
	equal(t, d, 0, want)
	if d.Size() != testSize {
		t.Errorf("size is %d now", d.Size())
	}
}

func boundsOfExtras(t *testing.T, d blockdev.Device, off int64, p []byte) {
	t.Helper()
	if r, ok := d.(blockdev.NowaitReader); ok {
		_, err := r.ReadAtNowait(p, off)
		wantError(t, "ReadAtNowait", err, blockdev.ErrOutOfRange)
	}
	if w, ok := d.(blockdev.SyncWriter); ok {
		wantError(t, "WriteAtSync", w.WriteAtSync(p, off), blockdev.ErrOutOfRange)
	}
}

// boundsOfRanges tries the calls that take a length, which may be absurd.
func boundsOfRanges(t *testing.T, d blockdev.Device) {
	t.Helper()
	for _, r := range []struct{ off, n int64 }{
		{0, testSize + 1}, {testSize, 1}, {1, testSize}, {-1, 1}, {0, -1}, {512, -512},
		{1, math.MaxInt64}, {math.MaxInt64, math.MaxInt64}, {math.MinInt64, math.MinInt64},
		{testSize - 1, math.MaxInt64 - testSize + 2},
	} {
		if u, ok := d.(blockdev.Unmapper); ok {
			wantError(t, "Unmap", u.Unmap(r.off, r.n), blockdev.ErrOutOfRange)
		}
		if p, ok := d.(blockdev.Prefetcher); ok {
			wantError(t, "Prefetch", p.Prefetch(r.off, r.n), blockdev.ErrOutOfRange)
		}
		if z, ok := d.(blockdev.Zeroer); ok {
			wantError(t, "WriteZeroes", z.WriteZeroes(r.off, r.n), blockdev.ErrOutOfRange)
		}
	}
}

// testConcurrency gives each of many goroutines a part of the device, at
// which it writes, reads, syncs and zeroes while all the others do.
func (s DeviceSuite) testConcurrency(t *testing.T) {
	const workers = 8
	d := s.Open(t, testSize, 512)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			m := newModel(d, int64(i)*testSize/workers, testSize/workers)
			for range 60 {
				if err := m.step(r); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// testNoTearing: of overlapping writes of one block each, every reader sees
// one or the other, never a mix.
func (s DeviceSuite) testNoTearing(t *testing.T) {
	for _, blockSize := range []int{512, 4096} {
		d := s.Open(t, testSize, blockSize)
		var wg sync.WaitGroup
		for i := range 4 {
			block := bytes.Repeat([]byte{byte(i + 1)}, blockSize)
			wg.Go(func() {
				for range 200 {
					if _, err := d.WriteAt(block, int64(blockSize)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		got := make([]byte, blockSize)
		if _, err := d.ReadAt(got, int64(blockSize)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, bytes.Repeat(got[:1], blockSize)) || got[0] == 0 {
			t.Errorf("block of %d bytes is torn: it begins with %x and ends with %x", blockSize, got[0], got[blockSize-1])
		}
	}
}

// testModel compares a long random history with a slice of bytes.
func (s DeviceSuite) testModel(t *testing.T) {
	d := s.Open(t, testSize, 512)
	m := newModel(d, 0, testSize)
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		ok(t, m.step(r))
	}
	equal(t, d, 0, m.want)
}

func (s DeviceSuite) testClosed(t *testing.T) {
	d := s.Open(t, testSize, 512)
	ok(t, d.Close())
	p := make([]byte, 512)
	_, err := d.ReadAt(p, 0)
	wantError(t, "ReadAt", err, blockdev.ErrClosed)
	_, err = d.WriteAt(p, 0)
	wantError(t, "WriteAt", err, blockdev.ErrClosed)
	wantError(t, "Sync", d.Sync(), blockdev.ErrClosed)
	wantError(t, "Close", d.Close(), blockdev.ErrClosed)
	if m, ok := d.(blockdev.VolatileMarker); ok {
		_, err := m.VolatileMark()
		wantError(t, "VolatileMark", err, blockdev.ErrClosed)
		wantError(t, "SetVolatileMark", m.SetVolatileMark(blockdev.VolatileMark{BootID: "b"}), blockdev.ErrClosed)
	}
	if k, ok := d.(blockdev.StateKeeper); ok {
		_, err := k.State()
		wantError(t, "State", err, blockdev.ErrClosed)
		wantError(t, "SetState", k.SetState([]byte(`1`)), blockdev.ErrClosed)
	}
}

func (s DeviceSuite) testSyncErrorSticks(t *testing.T) {
	if s.FailSync == nil {
		t.Fatal("the backend's test gives no FailSync")
	}
	d := s.Open(t, testSize, 512)
	write(t, d, 0, pattern(1, 4096))
	ok(t, d.Sync())
	write(t, d, 0, pattern(2, 4096))
	s.FailSync(t, d)
	if d.Sync() == nil {
		t.Error("the Sync that lost writes returned nil")
	}
	for range 2 {
		wantError(t, "a later Sync", d.Sync(), blockdev.ErrLostWrites)
	}
	if w, ok := d.(blockdev.SyncWriter); ok {
		wantError(t, "a later WriteAtSync", w.WriteAtSync(make([]byte, 512), 0), blockdev.ErrLostWrites)
	}
}
