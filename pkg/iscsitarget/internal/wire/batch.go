package wire

import (
	"os"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Who waits for a connection preempts whoever has its processor when something comes. An
// initiator on the same machine that sends many commands is preempted at the first, which
// is answered alone, and so on: both come to little else than to take turns. So the threads
// of the process are SCHED_BATCH (sched(7)) while a connection is deep: they preempt nobody,
// and find the commands together. With few commands under way that would be paid for where
// other programs keep all processors busy: each command could wait for the scheduler's tick.

// deepTurns is by how many times more Gauge must find a connection deep, or not, to
// believe it.
const deepTurns = 64

// gauge is the reader's.
type gauge struct {
	deep  bool
	turns int // how many more of them say otherwise
}

// Gauge is told, now and then, whether the peer has many requests under way. Who reads
// calls it.
func (c *Conn) Gauge(deep bool) {
	switch g := &c.gauge; {
	case g.deep != deep && g.turns < deepTurns:
		g.turns++
	case g.deep != deep:
		g.deep, g.turns = deep, 0
	case g.turns > 0:
		g.turns--
	}
	if c.gauge.deep {
		batch.deep()
	}
}

// batch is the process's.
var batch = policy{period: 50 * time.Millisecond}

// policy is how the threads of the process are scheduled.
type policy struct {
	period time.Duration // without a deep connection, after which it is as before

	seen atomic.Bool // a deep connection, since the last look
	on   atomic.Bool // look is to come
	ours bool        // the threads were made SCHED_BATCH; look's and its starter's
}

// deep says that there is a deep connection.
func (p *policy) deep() {
	if !p.seen.Load() {
		p.seen.Store(true)
	}
	if !p.on.Load() && p.on.CompareAndSwap(false, true) {
		// What somebody has given us otherwise stays.
		p.ours = reschedule(schedOther, unix.SCHED_BATCH)
		time.AfterFunc(p.period, p.look)
	}
}

// look ends it where there has been no deep connection for a while.
func (p *policy) look() {
	if p.seen.Swap(false) {
		time.AfterFunc(p.period, p.look)
		return
	}
	if p.ours {
		reschedule(unix.SCHED_BATCH, schedOther)
	}
	p.on.Store(false)
}

// schedOther is SCHED_OTHER, which package unix calls SCHED_NORMAL.
const schedOther = unix.SCHED_NORMAL

// reschedule gives each thread that has one policy another one, which its threads inherit.
// It returns whether there was any. Where it is not permitted all stays as it is: that costs
// time alone.
func reschedule(from, to int) (some bool) {
	// Again for threads that others began meanwhile; not for ever, where a system says yes
	// and does nothing.
	const rounds = 8
	for i, changed := 0, true; changed && i < rounds; i++ {
		changed = false
		for _, tid := range threads() {
			var priority int32 // as these policies have it
			if scheduler(tid) != from {
				continue
			}
			_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(tid), uintptr(to), uintptr(unsafe.Pointer(&priority))) //nolint:gosec // the kernel's interface
			changed = changed || errno == 0
		}
		some = some || changed
	}
	return some
}

// scheduler is a thread's policy, -1 where it has gone.
func scheduler(tid int) int {
	policy, _, errno := unix.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(tid), 0, 0)
	if errno != 0 {
		return -1
	}
	return int(policy)
}

// threads are those of the process; none where that cannot be told.
func threads() (tids []int) {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids
}
