package session

import (
	"sync"
	"sync/atomic"
)

// bufferClasses are the sizes in bytes that buffers come in; the last one is
// the longest burst or data segment that a task ever holds at once.
var bufferClasses = [...]int{4 << 10, 16 << 10, 64 << 10, 256 << 10}

// maxBuffer is the length of the largest buffer in bytes.
const maxBuffer = 256 << 10

var bufferPools [len(bufferClasses)]sync.Pool

// Budget bounds the memory of data in flight for a whole process. Each session
// draws on it through an account of its own, so that one of them cannot take
// it all.
type Budget struct {
	limit int64 // bytes
	used  atomic.Int64

	// Who finds nothing waits for freed: sessions meet at mu then alone.
	waiting atomic.Int32
	mu      sync.Mutex
	freed   *sync.Cond
}

// NewBudget makes a budget of limit bytes.
func NewBudget(limit int) *Budget {
	b := &Budget{limit: int64(limit)}
	b.freed = sync.NewCond(&b.mu)
	return b
}

// Used is what is out now, in bytes.
func (b *Budget) Used() int { return int(b.used.Load()) }

// reserve takes n bytes, where there are so many.
func (b *Budget) reserve(n int64) bool {
	for {
		used := b.used.Load()
		if used+n > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// wake has those that wait look again. What they wait for was changed before.
func (b *Budget) wake() {
	if b.waiting.Load() > 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.freed.Broadcast()
	}
}

// account is one session's part of a Budget.
type account struct {
	budget *Budget
	limit  int

	mu     sync.Mutex
	used   int
	closed bool
}

// buffer is memory on a budget. Free it once, and once more for each share.
type buffer struct {
	b       []byte
	class   int
	account *account
	shares  atomic.Int32
}

// share adds a holder, who frees the buffer too.
func (b *buffer) share() {
	if b != nil {
		b.shares.Add(1)
	}
}

// get waits until n bytes (maxBuffer at most) are within the budget; it returns
// nil once the account is closed, or gone is set and wake was called.
func (a *account) get(n int, gone *atomic.Bool) *buffer { return a.take(n, gone) }

// tryGet returns nil where get would wait.
func (a *account) tryGet(n int) *buffer { return a.take(n, nil) }

// tryGetSpare is tryGet; what is spare leaves half of the budget, and of the
// session's part of it, to those that cannot do without.
func (a *account) tryGetSpare(n int, spare bool) *buffer {
	if spare && a.short(bufferClasses[classOf(n)]) {
		return nil
	}
	return a.tryGet(n)
}

// short: with size bytes more less than half would be left.
func (a *account) short(size int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return 2*(a.used+size) > a.limit || 2*(a.budget.used.Load()+int64(size)) > a.budget.limit
}

func (a *account) take(n int, gone *atomic.Bool) *buffer {
	class := classOf(n)
	if !a.reserve(bufferClasses[class], gone) {
		return nil
	}
	return a.buffer(class, n)
}

// getAll is get for n bytes, which may be more than maxBuffer, in several buffers: all
// of them at once, so that those who keep what they have do not wait for one another.
// n is within the limit of the account.
func (a *account) getAll(n int, gone *atomic.Bool) []*buffer {
	whole, rest := n/maxBuffer, n%maxBuffer
	size := whole * maxBuffer
	if rest > 0 {
		size += bufferClasses[classOf(rest)]
	}
	if !a.reserve(size, gone) {
		return nil
	}
	var all []*buffer
	for range whole {
		all = append(all, a.buffer(classOf(maxBuffer), maxBuffer))
	}
	if rest > 0 {
		all = append(all, a.buffer(classOf(rest), rest))
	}
	return all
}

// reserve takes size bytes off the budget. With gone it waits for them.
func (a *account) reserve(size int, gone *atomic.Bool) bool {
	if ok, closed := a.tryReserve(size); ok || closed || gone == nil {
		return ok
	}
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting.Add(1) // before it looks: who frees looks at this afterwards
	defer b.waiting.Add(-1)
	for {
		ok, closed := a.tryReserve(size)
		if ok || closed || gone.Load() {
			return ok
		}
		b.freed.Wait()
	}
}

// tryReserve is reserve without waiting; closed says that it would be in vain.
func (a *account) tryReserve(size int) (ok, closed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.used+size > a.limit || !a.budget.reserve(int64(size)) {
		return false, a.closed
	}
	a.used += size
	return true, false
}

// buffer makes a buffer of n bytes whose class was reserved.
func (a *account) buffer(class, n int) *buffer {
	buf, _ := bufferPools[class].Get().(*buffer)
	if buf == nil {
		buf = &buffer{b: make([]byte, bufferClasses[class]), class: class}
	}
	buf.account, buf.b = a, buf.b[:n]
	return buf
}

// close wakes whoever waits for memory of this account; buffers that are out
// are still to be freed.
func (a *account) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.budget.wake()
}

// wake has those that wait for memory look again whether they are gone.
func (a *account) wake() { a.budget.wake() }

func (b *buffer) free() {
	if b == nil || b.shares.Add(-1) >= 0 {
		return
	}
	b.shares.Store(0)
	a := b.account
	b.account = nil
	size := bufferClasses[b.class]
	b.b = b.b[:size]
	bufferPools[b.class].Put(b)
	a.mu.Lock()
	a.used -= size
	a.mu.Unlock()
	a.budget.used.Add(-int64(size))
	a.budget.wake()
}

func classOf(n int) int {
	for i, size := range bufferClasses {
		if n <= size {
			return i
		}
	}
	panic("session: buffer longer than maxBuffer")
}
