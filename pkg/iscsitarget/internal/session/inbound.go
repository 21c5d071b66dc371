package session

import "time"

// maxR2Ts is how many bursts of one command may be under way at once, where the
// initiator takes as many R2Ts: what text.Defaults asks for.
const maxR2Ts = 8

// inbound is the Data-Out side of a task, guarded by Session.mu. Data comes in
// bursts: one that the initiator sends unasked (immediate and unsolicited
// data), then those that an R2T asks for, MaxOutstandingR2T at a time.
type inbound struct {
	want    int64 // bytes that the command takes
	asked   int64 // up to here data has come or is asked for
	stopped bool  // nothing more is asked for
	r2tSN   uint32

	unsolicited *burst
	solicited   [maxR2Ts]*burst // those under way; nil is room for one
	asking      bool            // the R2T of the newest is not sent yet
	recoveries  int             // how often data was asked for that was damaged
	held        *burst          // complete, but the task is dormant
	// collect holds the whole parameter list of an Exec; a Write has a
	// buffer a burst instead.
	collect *buffer
}

// burst is one sequence of Data-Out PDUs.
type burst struct {
	t      *task
	ttt    uint32
	r2tSN  uint32
	start  int64 // offset of its first byte in the task's data
	length int64 // bytes that may come
	got    int64
	// written is how many bytes from the first on the reader writes itself.
	written int64
	dataSN  uint32
	broken  bool    // data is missing: what comes behind it is dropped
	buf     *buffer // nil where the data is collected, or of no use
	// moved is when the initiator was asked, or sent something, last: zero
	// until it is asked.
	moved time.Time
}

// settled: no data is under way and none will be asked for.
func (in *inbound) settled() bool {
	return in.unsolicited == nil && in.underWay() == 0 && (in.stopped || in.asked >= in.want)
}

// underWay is how many bursts are asked for and not over.
func (in *inbound) underWay() (n int) {
	for _, b := range in.solicited {
		if b != nil {
			n++
		}
	}
	return n
}

// owed: there is data that an R2T has asked for.
func (in *inbound) owed() bool {
	for _, b := range in.solicited {
		if b != nil && b.ttt != 0 {
			return true
		}
	}
	return false
}

// replace puts a burst in the place of another; nil is no burst.
func (in *inbound) replace(old, b *burst) {
	for i := range in.solicited {
		if in.solicited[i] == old {
			in.solicited[i] = b
			return
		}
	}
}

// free gives back what the task holds when it ends.
func (in *inbound) free() {
	if in.unsolicited != nil {
		in.unsolicited.buf.free()
	}
	for _, b := range in.solicited {
		if b != nil {
			b.buf.free()
		}
	}
	if in.held != nil {
		in.held.buf.free()
		in.held = nil
	}
	in.collect.free()
	in.unsolicited, in.solicited, in.collect = nil, [maxR2Ts]*burst{}, nil
}

// params is what an Exec collected.
func (in *inbound) params() []byte {
	if in.collect == nil {
		return nil
	}
	return in.collect.b[:in.want]
}

// overdue: data that the initiator owes has not moved since then.
func (in *inbound) overdue(since time.Time) bool {
	if b := in.unsolicited; b != nil && b.overdue(since) {
		return true
	}
	for _, b := range in.solicited {
		if b != nil && b.overdue(since) {
			return true
		}
	}
	return false
}

func (b *burst) overdue(since time.Time) bool { return !b.moved.IsZero() && b.moved.Before(since) }
