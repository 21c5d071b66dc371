package session

import "sync/atomic"

// window is a session's command numbering (RFC 7143 section 4.2.2.1): which
// CmdSN is expected next, and how far ahead the initiator may go. Only the
// connection's reader moves expCmdSN; tasks that end open the window.
type window struct {
	// both is expCmdSN in the high half and maxCmdSN in the low one, so
	// that one load gives a consistent pair.
	both atomic.Uint64
}

func newWindow(cmdSN uint32, depth int) *window {
	w := &window{}
	w.both.Store(uint64(cmdSN)<<32 | uint64(cmdSN+uint32(depth)-1))
	return w
}

func (w *window) advertised() (exp, most uint32) {
	v := w.both.Load()
	return uint32(v >> 32), uint32(v)
}

// arrival says what a non-immediate CmdSN is.
type arrival uint8

const (
	inOrder arrival = iota
	early           // within the window, but others come first
	outside         // before or beyond it: to be ignored
)

func (w *window) classify(cmdSN uint32) arrival {
	exp, most := w.advertised()
	switch {
	case cmdSN == exp && serialLess(exp, most+1):
		return inOrder
	case serialLess(exp, cmdSN) && serialLess(cmdSN, most+1):
		return early
	}
	return outside
}

// accept moves on to the next CmdSN.
func (w *window) accept() { w.both.Add(1 << 32) }

// release opens the window by one command that has ended.
func (w *window) release() {
	for {
		v := w.both.Load()
		next := v&^0xffffffff | uint64(uint32(v)+1)
		if w.both.CompareAndSwap(v, next) {
			return
		}
	}
}

// serialLess is a < b in RFC 1982 serial number arithmetic, 32 bits.
func serialLess(a, b uint32) bool { return int32(a-b) < 0 }
