package scsi

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// chore is what goes over the whole medium by itself, while every other command
// that looks at the medium is NOT READY: SANITIZE and FORMAT UNIT. It outlives
// the command and the nexus that began it and, where the unit keeps a state, the
// process: whoever began to erase a disk wants it erased.
//
// The order of events: the chore is kept durably; commands are refused; those
// that were decoded before find out with their next part; each step has its
// blocks for itself; a Sync; the record of the chore is removed.
type chore struct {
	// Kind is one of the constants below.
	Kind string `json:"kind"`
	// Pattern is written Passes times by an overwrite, every second time
	// inverted where Invert says so; the last pass is never inverted.
	Pattern []byte `json:"pattern,omitempty"`
	Passes  int    `json:"passes,omitempty"`
	Invert  bool   `json:"invert,omitempty"`
	// AllowExit: EXIT FAILURE MODE ends a failure (AUSE).
	AllowExit bool `json:"allowExit,omitempty"`
	// Failed: it ended so, and the medium holds anything.
	Failed bool `json:"failed,omitempty"`
}

// Kinds of chores.
const (
	choreOverwrite = "sanitize overwrite"
	choreErase     = "sanitize block erase"
	choreFormat    = "format"
)

// chores are a unit's one chore and its progress.
type chores struct {
	current atomic.Pointer[chore]
	// progress is in 65536ths, as REQUEST SENSE tells it.
	progress atomic.Uint32
	mu       sync.Mutex
	cancel   context.CancelFunc // ends the one that runs
	done     chan struct{}      // closed when it has ended; nil where none was
}

var errChore = errors.New("the unit is busy with another")

// status is the status of a command that a chore keeps out.
func (c *chore) status(progress uint32) Status {
	switch {
	case c.Failed && c.Kind == choreFormat:
		return check(mediumError, ascFormatFailed)
	case c.Failed:
		return check(mediumError, ascSanitizeFailed)
	case c.Kind == choreFormat:
		return check(notReady, ascFormatInProgress).withProgress(uint16(progress))
	}
	return check(notReady, ascSanitizeInProgress).withProgress(uint16(progress))
}

// admitChore is GOOD while no chore keeps commands out.
func (u *Unit) admitChore() Status {
	if c := u.chores.current.Load(); c != nil {
		return c.status(u.chores.progress.Load())
	}
	return StatusGood
}

// startChore starts a chore. The channel is closed when it has ended.
func (u *Unit) startChore(c chore) (<-chan struct{}, error) {
	s := &u.chores
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.current.Load(); now != nil && !now.Failed {
		return nil, errChore
	}
	if err := u.keepChore(&c); err != nil {
		return nil, err
	}
	s.progress.Store(0)
	s.current.Store(&c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s.cancel, s.done = cancel, done
	go func() {
		defer close(done)
		defer cancel()
		u.work(ctx, c)
	}()
	return done, nil
}

// resumeChore takes up the chore that an earlier process kept.
func (u *Unit) resumeChore() error {
	c := u.state.Chore
	if c == nil {
		return nil
	}
	if c.Failed {
		u.chores.current.Store(c)
		return nil
	}
	_, err := u.startChore(*c)
	return err
}

func (u *Unit) keepChore(c *chore) error {
	if !u.saves() {
		return nil
	}
	return u.keep(func(state *unitState) { state.Chore = c })
}

// work does a chore and says how it ended. One that the process's end stops is
// taken up again by the next.
func (u *Unit) work(ctx context.Context, c chore) {
	err := u.perform(ctx, c)
	if ctx.Err() != nil {
		return
	}
	next := (*chore)(nil)
	if err != nil {
		u.config.Logger.Error("The unit could not be erased", "kind", c.Kind, "err", err)
		c.Failed = true
		next = &c
	}
	if err := u.keepChore(next); err != nil {
		u.config.Logger.Error("Cannot remember that the chore ended: it will be done again after a restart", "kind", c.Kind, "err", err)
	}
	u.chores.current.Store(next)
}

// stop ends a chore that runs and waits for it.
func (s *chores) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done != nil {
		s.cancel()
		<-s.done
	}
}

// exitFailure ends a failure that may be ended so.
func (u *Unit) exitFailure() Status {
	s := &u.chores
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.current.Load()
	switch {
	case c == nil:
		return StatusGood
	case !c.Failed || !c.AllowExit:
		return c.status(s.progress.Load())
	}
	if err := u.keepChore(nil); err != nil {
		u.config.Logger.Error("Cannot remember that the failure mode ended", "err", err)
		return SenseInternalTargetFailure
	}
	s.current.Store(nil)
	return StatusGood
}

func (u *Unit) perform(ctx context.Context, c chore) error {
	if err := u.durability.begin(false); err != nil {
		return err
	}
	err := u.passes(ctx, c)
	u.durability.end()
	if err != nil {
		return err
	}
	return u.durability.flush()
}

func (u *Unit) passes(ctx context.Context, c chore) error {
	switch c.Kind {
	case choreFormat:
		return u.eachStep(ctx, 0, 1, u.clear)
	case choreErase:
		if err := u.eachStep(ctx, 0, 2, u.erase); err != nil {
			return err
		}
		return u.eachStep(ctx, 1, 2, u.clear)
	}
	for pass := range c.Passes {
		inverted := c.Invert && (c.Passes-1-pass)%2 == 1
		if err := u.eachStep(ctx, pass, c.Passes, overwriteWith(u, c.Pattern, inverted)); err != nil {
			return err
		}
	}
	return nil
}

// eachStep calls f for the medium in steps, each with its blocks for itself, as
// one pass of several.
func (u *Unit) eachStep(ctx context.Context, pass, passes int, f func(at, n int64) error) error {
	size := u.blocks.Load() * u.blockSize
	pace := time.NewTicker(time.Second * choreStepBytes / choreRate)
	defer pace.Stop()
	for at := int64(0); at < size; at += choreStepBytes {
		if at > 0 {
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n := min(choreStepBytes, size-at)
		u.guard.own(at, n)
		u.tokens.changed(at, n)
		err := f(at, n)
		u.guard.disown(at, n)
		u.thresholds.poke()
		if err != nil {
			return err
		}
		part := (float64(pass) + float64(at+n)/float64(size)) / float64(passes)
		u.chores.progress.Store(min(uint32(part*65536), 65535))
	}
	return nil
}

const (
	// choreStepBytes is how much a chore does between two looks at its
	// context.
	choreStepBytes = 4 << 20
	// choreRate is the bytes a second that a chore writes at most, so that the
	// other volumes of the same disk have their share.
	choreRate = 128 << 20
)

// clear makes a range read as zeros, unmapped where the unit is thin.
func (u *Unit) clear(at, n int64) error {
	switch {
	case u.unmapper != nil:
		return u.unmapper.Unmap(at, n)
	case u.zeroer != nil:
		return u.zeroer.WriteZeroes(at, n)
	}
	return u.fillRange(at, n, nil)
}

// erase writes zeros over what is allocated, so that the blocks which an unmap
// gives back hold nothing.
func (u *Unit) erase(at, n int64) error {
	if u.mapper == nil {
		return u.fillRange(at, n, nil)
	}
	for end := at + n; at < end; {
		mapped, length, err := u.mapper.Mapped(at)
		if err != nil {
			return err
		}
		length = min(length, end-at)
		if mapped {
			if err := u.fillRange(at, length, nil); err != nil {
				return err
			}
		}
		at += length
	}
	return nil
}

func overwriteWith(u *Unit, pattern []byte, inverted bool) func(at, n int64) error {
	p := make([]byte, len(pattern))
	for i := range p {
		p[i] = pattern[i]
		if inverted {
			p[i] = ^p[i]
		}
	}
	return func(at, n int64) error { return u.fillRange(at, n, p) }
}

// fillRange writes a pattern, at the start of every block anew, or zeros.
func (u *Unit) fillRange(at, n int64, pattern []byte) error {
	buffer := scratch.Get().(*[]byte)
	defer scratch.Put(buffer)
	b := *buffer
	for block := 0; block < len(b); block += int(u.blockSize) {
		fill(b[block:block+int(u.blockSize)], pattern)
	}
	for n > 0 {
		part := min(n, int64(len(b)))
		if _, err := u.device.WriteAt(b[:part], at); err != nil {
			return err
		}
		at, n = at+part, n-part
	}
	return nil
}
