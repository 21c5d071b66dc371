package iscsitest

import (
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// Call is a method of a Device that a Gate can hold up.
type Call uint8

// The calls that a Gate holds up.
const (
	ReadAt Call = iota
	WriteAt
	Sync
)

// Gate is a Device with a gate before its calls: a backend that stalls. It has
// none of the optional interfaces, so that every call comes through.
type Gate struct {
	blockdev.Device
	mu    sync.Mutex
	holds map[Call]*Hold
	all   []*Hold
}

// Hold is a closed gate.
type Hold struct {
	entered chan struct{} // a value for each call that is held up
	open    chan struct{}
	once    sync.Once
}

// NewGate puts a gate, open, before a device.
func NewGate(dev blockdev.Device) *Gate { return &Gate{Device: dev, holds: map[Call]*Hold{}} }

// Hold closes the gate for a call until Release.
func (g *Gate) Hold(c Call) *Hold {
	h := &Hold{entered: make(chan struct{}, 1<<16), open: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.holds[c], g.all = h, append(g.all, h)
	return h
}

// Await waits until one more call is held up.
func (h *Hold) Await(tb testing.TB) {
	tb.Helper()
	select {
	case <-h.entered:
	case <-time.After(Timeout):
		tb.Fatal("iscsitest: no call came to the gate")
	}
}

// Waiting is how many calls that Await has not seen are, or were, held up.
func (h *Hold) Waiting() int { return len(h.entered) }

// Release lets everything through, now and later.
func (h *Hold) Release() { h.once.Do(func() { close(h.open) }) }

// Open releases everything that was ever held: for the end of a test that failed.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.all {
		h.Release()
	}
}

func (g *Gate) pass(c Call) {
	g.mu.Lock()
	h := g.holds[c]
	g.mu.Unlock()
	if h == nil {
		return
	}
	h.entered <- struct{}{}
	<-h.open
}

// Holds says whether the gate is closed for a call.
func (g *Gate) Holds(c Call) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.holds[c]
	if h == nil {
		return false
	}
	select {
	case <-h.open:
		return false
	default:
		return true
	}
}

// ReadAt waits at the gate.
func (g *Gate) ReadAt(p []byte, off int64) (int, error) {
	g.pass(ReadAt)
	return g.Device.ReadAt(p, off)
}

// WriteAt waits at the gate.
func (g *Gate) WriteAt(p []byte, off int64) (int, error) {
	g.pass(WriteAt)
	return g.Device.WriteAt(p, off)
}

// Sync waits at the gate.
func (g *Gate) Sync() error {
	g.pass(Sync)
	return g.Device.Sync()
}
