package scsi

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// thresholdPeriod is how long after a write the thresholds are looked at.
const thresholdPeriod = time.Second

// Values of THRESHOLD RESOURCE and THRESHOLD ARMING, of which SBC-4 table 7 has
// these pairs alone, for soft thresholds (THRESHOLD TYPE 000b).
const (
	resourceAvailable = 1
	resourceUsed      = 2
	armedDecreasing   = 0 // of what is available
	armedIncreasing   = 1 // of what is used
)

// thresholdKinds are the resources of the descriptors of the mode page, which
// cannot be changed.
var thresholdKinds = [...]struct{ resource, arming byte }{
	{resourceAvailable, armedDecreasing}, {resourceAvailable, armedDecreasing},
	{resourceUsed, armedIncreasing}, {resourceUsed, armedIncreasing},
}

// threshold is what MODE SELECT changes of a threshold descriptor.
type threshold struct {
	Enabled bool `json:"enabled,omitempty"`
	// Count is in threshold sets.
	Count uint32 `json:"count,omitempty"`
}

// Logical block provisioning page, SBC-4 section 6.5.9. Offsets are of the page
// with its head.
const (
	thresholdsAt     = 16
	thresholdBytes   = 8
	thresholdEnabled = 1 << 7
	thresholdCountAt = 4
)

func putThresholds(s settings, b []byte) {
	for i, kind := range thresholdKinds {
		d := thresholdDescriptor(b, i)
		setBit(&d[0], thresholdEnabled, s.Thresholds[i].Enabled)
		d[0] |= kind.arming
		d[1] = kind.resource
		binary.BigEndian.PutUint32(d[thresholdCountAt:], s.Thresholds[i].Count)
	}
}

func takeThresholds(b []byte, s *settings) {
	for i := range thresholdKinds {
		d := thresholdDescriptor(b, i)
		s.Thresholds[i] = threshold{d[0]&thresholdEnabled != 0, binary.BigEndian.Uint32(d[thresholdCountAt:])}
	}
}

// thresholdDescriptor is one of a page without its head.
func thresholdDescriptor(b []byte, i int) []byte {
	return b[thresholdsAt-longHead+i*thresholdBytes:][:thresholdBytes]
}

// changeableThresholds is the page's mask.
func changeableThresholds() []byte {
	b := make([]byte, thresholdsAt-longHead+len(thresholdKinds)*thresholdBytes)
	for i := range thresholdKinds {
		d := thresholdDescriptor(b, i)
		d[0] = thresholdEnabled
		binary.BigEndian.PutUint32(d[thresholdCountAt:], 1<<32-1)
	}
	return b
}

// leastExponent is the threshold exponent of units of an ordinary size: counts are
// in units of 2^11 logical blocks, 1 MiB of 512 bytes each.
const leastExponent = 11

// thresholdExponent is the size of a threshold set as a power of two, in logical
// blocks: the capacity is less than 2^32 sets (SBC-4 section 6.6.7).
func (u *Unit) thresholdExponent() int {
	return max(leastExponent, bits.Len64(uint64(u.blocks.Load()))-32)
}

// thresholds watch the space of a unit. A write asks for a look at it, which
// comes a period later, in a goroutine that close waits for: the write itself
// costs one atomic load, and many writes one look.
type thresholds struct {
	unit *Unit
	// on says that there is something to watch, due that a look will come.
	on, due atomic.Bool
	// crossed is the offset of the descriptor that was crossed last.
	crossed atomic.Uint64

	mu      sync.Mutex
	set     [len(thresholdKinds)]threshold
	reached [len(thresholdKinds)]bool // and not left again since
	closed  bool
	timer   *time.Timer
	timers  sync.WaitGroup
}

func newThresholds(u *Unit) *thresholds {
	t := &thresholds{unit: u}
	t.timer = time.AfterFunc(thresholdPeriod, t.look)
	t.timer.Stop()
	return t
}

// configure takes over new settings. One that has changed is reported anew.
func (t *thresholds) configure(s settings) {
	t.mu.Lock()
	on := false
	for i, next := range s.Thresholds {
		t.reached[i] = t.reached[i] && next == t.set[i]
		on = on || next.Enabled
	}
	t.set = s.Thresholds
	t.on.Store(on && !s.ThresholdsQuiet && t.unit.knowsSpace())
	t.mu.Unlock()
	t.poke()
}

// reset has every threshold that is reached reported anew, as after a logical unit
// reset.
func (t *thresholds) reset() {
	t.mu.Lock()
	clear(t.reached[:])
	t.mu.Unlock()
	t.poke()
}

// poke follows what may have taken space, or given some back.
func (t *thresholds) poke() {
	if !t.on.Load() || !t.due.CompareAndSwap(false, true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.timers.Add(1)
		t.timer.Reset(thresholdPeriod)
	}
}

// look compares the space with the thresholds.
func (t *thresholds) look() {
	defer t.timers.Done()
	t.due.Store(false) // before the look: what is written now is seen, or pokes
	if !t.on.Load() {
		return
	}
	space, err := t.unit.spacer.Space()
	if err != nil {
		t.unit.config.Logger.Error("Cannot read the space for the thresholds", "err", err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.set {
		if t.set[i].Enabled && t.cross(i, space) {
			t.crossed.Store(uint64(thresholdsAt + i*thresholdBytes))
			t.unit.establish(attentionThreshold)
		}
	}
}

// cross says whether a threshold has been reached since it was last left. A
// threshold is a range of one set around its count (SBC-4 section 4.7.3.7): it is
// reached at the count, and left at the other side of the range.
func (t *thresholds) cross(i int, space blockdev.Space) bool {
	exponent := t.unit.thresholdExponent()
	count, half := int64(t.set[i].Count)<<exponent, int64(1)<<(exponent-1)
	left := int64(t.unit.inBlocks(space.Available)) - count // until it is reached
	if thresholdKinds[i].resource == resourceUsed {
		left = count - int64(t.unit.inBlocks(space.Used))
	}
	was := t.reached[i]
	t.reached[i] = left <= 0 || was && left <= half
	return t.reached[i] && !was
}

func (t *thresholds) close() {
	t.mu.Lock()
	if !t.closed && t.timer.Stop() {
		t.timers.Done()
	}
	t.closed = true
	t.mu.Unlock()
	t.timers.Wait()
}
