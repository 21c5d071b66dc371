package volume

import (
	"errors"
	"math"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		r        SizeRange
		smallest int64
		want     int64 // 0: ErrOutOfRange
	}{
		{SizeRange{}, mib, defaultSize},
		{SizeRange{Required: 1}, mib, mib},
		{SizeRange{Required: mib}, mib, mib},
		{SizeRange{Required: mib + 1}, mib, 2 * mib},
		{SizeRange{Required: mib + 1, Limit: 2 * mib}, mib, 2 * mib},
		{SizeRange{Required: mib + 1, Limit: 2*mib - 1}, mib, 0},
		{SizeRange{Required: 2 * mib, Limit: mib}, mib, 0},
		{SizeRange{Limit: 10 * mib}, mib, 10 * mib},
		{SizeRange{Limit: 10*mib + 5}, mib, 10 * mib},
		{SizeRange{Limit: 4 * defaultSize}, mib, defaultSize},
		{SizeRange{Limit: mib - 1}, mib, 0},
		{SizeRange{Required: mib}, minXFS, minXFS},
		{SizeRange{Required: mib, Limit: minXFS - 1}, minXFS, 0},
		{SizeRange{Required: math.MaxInt64}, mib, 0},
		{SizeRange{Required: math.MaxInt64, Limit: math.MaxInt64}, mib, 0},
	} {
		got, err := tt.r.resolve(tt.smallest)
		if tt.want == 0 {
			if !errors.Is(err, ErrOutOfRange) {
				t.Errorf("%+v: %d, %v; want ErrOutOfRange", tt.r, got, err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%+v from %d: %d, %v; want %d", tt.r, tt.smallest, got, err, tt.want)
		}
	}
}

func TestRoom(t *testing.T) {
	const g = 1 << 30
	for name, tt := range map[string]struct {
		c     blockdev.Capacity
		ratio float64
		want  int64
	}{
		"empty":                 {blockdev.Capacity{Total: 10 * g, Free: 10 * g}, 1, 10 * g},
		"promised, not written": {blockdev.Capacity{Total: 10 * g, Free: 10 * g, Promised: 4 * g}, 1, 6 * g},
		"promised and written":  {blockdev.Capacity{Total: 10 * g, Free: 6 * g, Promised: 4 * g, Allocated: 4 * g}, 1, 6 * g},
		"others use the disk":   {blockdev.Capacity{Total: 10 * g, Free: 3 * g, Promised: 4 * g, Allocated: 2 * g}, 1, g},
		"metadata counts once":  {blockdev.Capacity{Total: 10 * g, Free: 5 * g, Promised: 4 * g, Allocated: 5 * g}, 1, 5 * g},
		"nothing left":          {blockdev.Capacity{Total: 10 * g, Free: g, Promised: 4 * g}, 1, 0},
		"twice":                 {blockdev.Capacity{Total: 10 * g, Free: g, Promised: 4 * g}, 2, 16 * g},
		"half":                  {blockdev.Capacity{Total: 10 * g, Free: 10 * g, Promised: 4 * g}, 0.5, g},
		"rounded down":          {blockdev.Capacity{Total: 10*mib + 5, Free: 10*mib + 5}, 1, 10 * mib},
		"overflow":              {blockdev.Capacity{Total: math.MaxInt64 / 2, Free: g}, 1000, math.MaxInt64 / mib * mib},
	} {
		if got := room(tt.c, tt.ratio); got != tt.want {
			t.Errorf("%s: room = %d, want %d", name, got, tt.want)
		}
	}
}
