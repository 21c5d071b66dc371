package blockdevtest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// wantError fails the test unless got is want.
func wantError(t *testing.T, call string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", call, got, want)
	}
}

// ok ends the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, d blockdev.Device, off int64, p []byte) {
	t.Helper()
	if n, err := d.WriteAt(p, off); err != nil || n != len(p) {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

// equal fails the test unless d holds want at off.
func equal(t *testing.T, d blockdev.Device, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := d.ReadAt(got, off); err != nil || n != len(got) {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", len(got), off, n, err)
	}
	if i := difference(got, want); i >= 0 {
		t.Fatalf("byte %d is %#02x, want %#02x", off+int64(i), got[i], want[i])
	}
}

// difference returns the first index at which two slices of one length
// differ, -1 where they do not.
func difference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// pattern is n bytes, none of them zero, that differ by seed and position.
func pattern(seed, n int) []byte {
	start := seed % len(noise)
	p := append(make([]byte, 0, n+len(noise)), noise[start:]...)
	for len(p) < n {
		p = append(p, noise...)
	}
	return p[:n]
}

// noise has a length that no block is a multiple of.
var noise = func() []byte {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, 10007)
	for i := range b {
		b[i] = byte(1 + r.IntN(255))
	}
	return b
}()
