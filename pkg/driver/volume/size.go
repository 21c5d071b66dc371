package volume

import (
	"fmt"
	"math"
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

const (
	mib = 1 << 20
	// sizeUnit is what every volume's size is a multiple of.
	sizeUnit = mib
	// defaultSize is for a request that names no size.
	defaultSize = 1 << 30
	// minXFS is the smallest device that mkfs.xfs takes.
	minXFS = 300 * mib
)

// SizeRange is what a volume's size must lie in, in bytes, both ends included.
// Zero is no bound; neither is negative.
type SizeRange struct {
	Required, Limit int64
}

// Holds says whether a volume of that size fits the range.
func (r SizeRange) Holds(size int64) bool {
	return size >= r.Required && (r.Limit == 0 || size <= r.Limit)
}

// resolve picks the size of a new volume: the smallest multiple of sizeUnit
// that fits, but not under smallest where the limit allows; the default where
// nothing is required.
func (r SizeRange) resolve(smallest int64) (int64, error) {
	if r.Limit != 0 && r.Limit < r.Required {
		return 0, fmt.Errorf("%w: limit %d is below the required %d bytes", ErrOutOfRange, r.Limit, r.Required)
	}
	size := r.Required
	if size == 0 {
		size = defaultSize
		if r.Limit != 0 {
			size = min(size, r.Limit/sizeUnit*sizeUnit)
		}
	}
	size = max(size, smallest)
	if size > math.MaxInt64-sizeUnit {
		return 0, fmt.Errorf("%w: %d bytes", ErrOutOfRange, r.Required)
	}
	size = (size + sizeUnit - 1) / sizeUnit * sizeUnit
	if !r.Holds(size) {
		return 0, fmt.Errorf("%w: sizes are multiples of %d bytes, from %d; none lies between %d and %d",
			ErrOutOfRange, sizeUnit, smallest, r.Required, r.Limit)
	}
	return size, nil
}

// smallestSize is the least that all the capabilities can work with.
func smallestSize(cs []Capability) int64 {
	if slices.ContainsFunc(cs, func(c Capability) bool { return c.FSType == XFS }) {
		return minXFS
	}
	return sizeUnit
}

// most is all that a pool of that size may ever promise.
func most(c blockdev.Capacity, ratio float64) int64 {
	bytes := ratio * float64(c.Total)
	if bytes >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(bytes)
}

// room is what a pool may still promise: up to ratio times its size and, where
// nothing is over-provisioned, only what others leave free, after the volumes
// that there are have filled up.
func room(c blockdev.Capacity, ratio float64) int64 {
	left := most(c, ratio) - c.Promised
	if ratio <= 1 {
		outstanding := max(0, c.Promised-c.Allocated)
		left = min(left, c.Free-outstanding)
	}
	return max(0, left) / sizeUnit * sizeUnit
}
