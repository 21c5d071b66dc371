package scsi

import "sync"

// Stripes of a guard.
const (
	stripeBytes = 1 << 20
	stripes     = 64
)

// guard makes COMPARE AND WRITE and its like atomic towards every other change
// of the same blocks: those share the stripes that a range of the medium falls
// into, an atomic one has them alone. Stripes are locked in ascending order.
type guard [stripes]sync.RWMutex

// each calls f for the stripes of [at, at+n).
func (g *guard) each(at, n int64, f func(*sync.RWMutex)) {
	first, last := at/stripeBytes, (at+max(n, 1)-1)/stripeBytes
	if last-first >= stripes-1 {
		first, last = 0, stripes-1
	}
	first, last = first%stripes, last%stripes
	if first > last { // wrapped: the low stripes come first
		for i := range last + 1 {
			f(&g[i])
		}
		last = stripes - 1
	}
	for i := first; i <= last; i++ {
		f(&g[i])
	}
}

func (g *guard) share(at, n int64)   { g.each(at, n, (*sync.RWMutex).RLock) }
func (g *guard) unshare(at, n int64) { g.each(at, n, (*sync.RWMutex).RUnlock) }
func (g *guard) own(at, n int64)     { g.each(at, n, (*sync.RWMutex).Lock) }
func (g *guard) disown(at, n int64)  { g.each(at, n, (*sync.RWMutex).Unlock) }

// wait returns when every change of the range that shared it before is over.
func (g *guard) wait(at, n int64) {
	g.each(at, n, func(m *sync.RWMutex) {
		m.Lock()
		m.Unlock() //nolint:staticcheck // an empty critical section is all there is to it
	})
}
