package lab

import (
	"strconv"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/vdso"
)

// clock is one reading of both of the machine's clocks.
type clock struct {
	ticks uint64
	at    time.Time
}

func readClock() clock { return clock{ticks: vdso.Ticks(), at: time.Now()} }

// rate is how often the processor's counter ticks in a nanosecond, measured
// since the reading, or "" if that is not to be relied on.
func (c clock) rate() string {
	now := readClock()
	since := now.at.Sub(c.at)
	if !vdso.Steady() || since < 10*time.Millisecond {
		return ""
	}
	return strconv.FormatFloat(float64(now.ticks-c.ticks)/float64(since.Nanoseconds()), 'g', -1, 64)
}
