package scsi

import "testing"

// TestGuard: what overlaps waits, what does not goes on.
func TestGuard(t *testing.T) {
	for _, x := range []struct {
		at, n   int64
		stripes int
	}{{0, 1, 1}, {0, 0, 1}, {stripeBytes - 1, 2, 2}, {stripeBytes, stripeBytes, 1}, {62*stripeBytes + 1, 3 * stripeBytes, 4}, {5, 1 << 40, stripes}} {
		var g guard
		g.own(x.at, x.n)
		held := 0
		for i := range g {
			if !g[i].TryRLock() {
				held++
			}
		}
		if held != x.stripes {
			t.Errorf("[%d, +%d) holds %d stripes, want %d", x.at, x.n, held, x.stripes)
		}
	}
}
