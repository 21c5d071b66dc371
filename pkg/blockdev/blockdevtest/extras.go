package blockdevtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/google/go-cmp/cmp"
)

func (s DeviceSuite) testUnmap(t *testing.T) {
	s.testZeroing(t, func(d blockdev.Device, off, n int64) error { return d.(blockdev.Unmapper).Unmap(off, n) })
}

func (s DeviceSuite) testWriteZeroes(t *testing.T) {
	s.testZeroing(t, func(d blockdev.Device, off, n int64) error { return d.(blockdev.Zeroer).WriteZeroes(off, n) })
}

// testZeroing zeroes each of the ranges on a full device, and checks that
// nothing beside it changes.
func (s DeviceSuite) testZeroing(t *testing.T, zero func(d blockdev.Device, off, n int64) error) {
	d := s.Open(t, testSize, 512)
	for i, r := range ranges {
		want := pattern(i, testSize)
		write(t, d, 0, want)
		ok(t, zero(d, r.off, r.n))
		clear(want[r.off : r.off+r.n])
		equal(t, d, 0, want)
		again := pattern(i+1, int(r.n))
		write(t, d, r.off, again)
		equal(t, d, r.off, again)
	}
	ok(t, d.Sync())
}

func (s DeviceSuite) testNowait(t *testing.T) {
	d := s.Open(t, testSize, 512)
	want := pattern(3, testSize)
	write(t, d, 0, want)
	for _, r := range ranges {
		got := make([]byte, r.n)
		n, err := d.(blockdev.NowaitReader).ReadAtNowait(got, r.off)
		switch {
		case err == nil && n != len(got), errors.Is(err, blockdev.ErrWouldBlock) && n >= len(got):
			t.Errorf("ReadAtNowait(%d bytes, %d) = %d, %v", r.n, r.off, n, err)
		case err != nil && !errors.Is(err, blockdev.ErrWouldBlock):
			t.Errorf("ReadAtNowait(%d bytes, %d): %v", r.n, r.off, err)
		case !bytes.Equal(got[:n], want[r.off:r.off+int64(n)]):
			t.Errorf("ReadAtNowait(%d bytes, %d) read something else", r.n, r.off)
		}
	}
}

func (s DeviceSuite) testWriteAtSync(t *testing.T) {
	d := s.Open(t, testSize, 512)
	want := make([]byte, testSize)
	for i, r := range ranges {
		p := pattern(i, int(r.n))
		ok(t, d.(blockdev.SyncWriter).WriteAtSync(p, r.off))
		copy(want[r.off:], p)
	}
	equal(t, d, 0, want)
}

// testMapped writes and unmaps, and goes through what the device says of it.
func (s DeviceSuite) testMapped(t *testing.T) {
	d := s.Open(t, testSize, 512)
	m := d.(blockdev.Mapper)
	if mapped, n, err := m.Mapped(0); mapped || n != testSize || err != nil {
		t.Errorf("an empty device: mapped %v for %d bytes, %v", mapped, n, err)
	}
	unit := d.(blockdev.Unmapper).UnmapGranularity()
	want := make([]byte, testSize)
	for _, off := range []int64{4 * unit, 5 * unit, 100 * unit, testSize - unit} {
		copy(want[off:], pattern(5, int(unit)))
		write(t, d, off, want[off:off+unit])
	}
	ok(t, d.Sync())
	ok(t, d.(blockdev.Unmapper).Unmap(5*unit, unit))
	clear(want[5*unit : 6*unit])
	for off := int64(0); off < testSize; {
		mapped, n, err := m.Mapped(off)
		if err != nil || n <= 0 || off+n > testSize {
			t.Fatalf("at %d: %d bytes, %v", off, n, err)
		}
		for at := off; at < off+n; at += unit {
			if full := want[at] != 0 || want[at+1] != 0; full != mapped {
				t.Errorf("at %d: mapped %v, want %v", at, mapped, full)
			}
		}
		off += n
	}
	for _, off := range []int64{-1, testSize, testSize + 1, math.MaxInt64} {
		_, _, err := m.Mapped(off)
		wantError(t, "Mapped", err, blockdev.ErrOutOfRange)
	}
}

func (s DeviceSuite) testSpace(t *testing.T) {
	d := s.Open(t, testSize, 512)
	write(t, d, 0, pattern(1, testSize/2))
	ok(t, d.Sync())
	space, err := d.(blockdev.Spacer).Space()
	ok(t, err)
	if space.Used < testSize/2 || space.Used > testSize || space.Available <= 0 {
		t.Errorf("half written of %d: %+v", testSize, space)
	}
}

func (s DeviceSuite) testPrefetch(t *testing.T) {
	d := s.Open(t, testSize, 512)
	want := pattern(3, testSize)
	write(t, d, 0, want)
	for _, r := range ranges {
		ok(t, d.(blockdev.Prefetcher).Prefetch(r.off, r.n))
	}
	equal(t, d, 0, want)
}

func (s DeviceSuite) testMark(t *testing.T) {
	d := s.Open(t, testSize, 512)
	marks := []blockdev.VolatileMark{
		{},
		{BootID: "boot-1"},
		{BootID: "boot-1", Stages: []blockdev.Stage{{Initiator: "iqn.2026-11.io.example:a", Nonce: "n1"}}},
		{
			BootID: "boot-2",
			Stages: []blockdev.Stage{{Initiator: "iqn.2026-11.io.example:a", Nonce: "n2"}, {Initiator: `"\é`, Nonce: ""}},
			Lost:   []blockdev.Stage{{Initiator: "iqn.2026-11.io.example:b", Nonce: "n3"}},
		},
		{Lost: []blockdev.Stage{{Initiator: "iqn.2026-11.io.example:b", Nonce: "n3"}}},
		{},
		{},
	}
	for _, want := range marks {
		ok(t, d.(blockdev.VolatileMarker).SetVolatileMark(want))
		d = s.reopened(t, d)
		got, err := d.(blockdev.VolatileMarker).VolatileMark()
		ok(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("mark (-set +read):\n%s", diff)
		}
	}
}

// testState: what was set last is there, after the device was opened anew too.
func (s DeviceSuite) testState(t *testing.T) {
	d := s.Open(t, testSize, 512)
	wantState(t, d, "")
	for _, want := range []string{
		`{"n":1}`, `{"longer":"` + strings.Repeat("x", 5000) + `"}`, `"\"\\é<&>"`, `{}`, ``, ``, `[1,2]`, ``, `7`,
		`"` + strings.Repeat("x", blockdev.MaxState-2) + `"`, `{"n":2}`,
	} {
		ok(t, d.(blockdev.StateKeeper).SetState(json.RawMessage(want)))
		d = s.reopened(t, d)
		wantState(t, d, want)
	}
}

// testStateInvalid: what cannot be kept is refused, and what was there stays.
func (s DeviceSuite) testStateInvalid(t *testing.T) {
	d := s.Open(t, testSize, 512)
	k := d.(blockdev.StateKeeper)
	ok(t, k.SetState(json.RawMessage(`{"n":1}`)))
	for _, text := range []string{`{`, `1 2`, ` `, `"` + strings.Repeat("x", blockdev.MaxState) + `"`} {
		wantError(t, "SetState", k.SetState(json.RawMessage(text)), blockdev.ErrInvalid)
		wantState(t, d, `{"n":1}`)
	}
}

func wantState(t *testing.T, d blockdev.Device, want string) {
	t.Helper()
	got, err := d.(blockdev.StateKeeper).State()
	if err != nil || !sameJSON(string(got), want) {
		t.Fatalf("state is %.100q (%v), want %.100q", got, err, want)
	}
	if want == "" && got != nil {
		t.Fatalf("no state is %q, want nil", got)
	}
}

// sameJSON compares values, for a keeper may write characters in other ways.
func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	return cmp.Equal(x, y)
}

// reopened is d closed and opened anew, or d of a backend that forgets.
func (s DeviceSuite) reopened(t *testing.T, d blockdev.Device) blockdev.Device {
	if s.Reopen == nil {
		return d
	}
	return s.Reopen(t, d)
}

// testGrow grows a device under I/O: the old part is not disturbed and the
// new one reads as zeros.
func (s DeviceSuite) testGrow(t *testing.T) {
	d := s.Open(t, testSize, 512)
	want := pattern(4, testSize)
	write(t, d, 0, want)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		got := make([]byte, 4096)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := d.ReadAt(got, testSize-4096); err != nil || !bytes.Equal(got, want[testSize-4096:]) {
				t.Errorf("a read while growing: %v", err)
				return
			}
		}
	})
	s.Grow(t, d, 2*testSize)
	close(stop)
	wg.Wait()
	if d.Size() != 2*testSize {
		t.Fatalf("size is %d, want %d", d.Size(), 2*testSize)
	}
	equal(t, d, 0, want)
	equal(t, d, testSize, make([]byte, testSize))
	write(t, d, 2*testSize-512, pattern(5, 512))
	equal(t, s.reopened(t, d), 2*testSize-512, pattern(5, 512))
}

func (s DeviceSuite) testReopen(t *testing.T) {
	d := s.Open(t, testSize, 4096)
	want := pattern(6, testSize)
	write(t, d, 0, want)
	ok(t, d.Sync())
	d = s.Reopen(t, d)
	if d.Size() != testSize || d.BlockSize() != 4096 {
		t.Errorf("size %d, block size %d", d.Size(), d.BlockSize())
	}
	equal(t, d, 0, want)
}
