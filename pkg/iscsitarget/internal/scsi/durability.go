package scsi

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// quietPeriod is how long a unit must have had no volatile write after a Sync
// until its mark is removed.
const quietPeriod = 2 * time.Second

// durability keeps a unit's word about acknowledged writes: one that was
// volatile and is gone must turn into an error for those who may have seen it,
// never into a later flush that succeeds without it.
//
// The order of events:
//
//  1. Before the first volatile write, the mark (boot id, stages of all
//     attached nexuses) is on stable storage. A nexus that attaches while the
//     mark is set is added before it sees anything.
//  2. A Sync during which no volatile write was begun or under way leaves the
//     unit clean. Clean and quiet, the mark is removed.
//  3. A Sync that fails makes every stage of the mark lost, and so does a start
//     under another boot id. A lost stage gets errors until its initiator
//     attaches with another nonce; the entry stays until forget, so that
//     whoever comes back with the old nonce still gets errors.
//  4. A device whose Sync failed is recovered when a stage that lost nothing
//     attaches and all that are attached are lost: nobody is left then who
//     could take what it shows for what it was told.
//
// A device that is no [blockdev.VolatileMarker] gets the same in memory.
//
// Where SetVolatileMark fails, what is on stable storage is unknown: marked goes
// false, so that the next volatile write does not happen before a mark is set.
type durability struct {
	device blockdev.Device
	marker blockdev.VolatileMarker // nil: memory only
	bootID string
	logger *slog.Logger
	commit groupCommit

	// begun and ended count the writes that were volatile when they ended;
	// stable is the value of begun up to which all of them are stable.
	begun, ended, stable atomic.Int64
	// era counts the times that the device was to be recovered: what it shows
	// may be older since.
	era atomic.Int64
	// marked says that the mark on stable storage covers a volatile write of
	// any attached nexus.
	marked atomic.Bool

	mu sync.Mutex
	// mark is what stable storage holds or, while unsaved, should hold.
	mark     blockdev.VolatileMark
	unsaved  bool
	attached map[*itl]struct{}
	// attachments counts them.
	attachments int
	suspect     bool // a Sync failed: what the device shows may not be stable
	closed      bool
	timer       *time.Timer
	timers      sync.WaitGroup
	// lost is len(mark.Lost) as last looked at.
	lost atomic.Int64
}

// newDurability reads the device's mark. One of an earlier boot becomes lost
// stages, durably; one of this boot goes on: the process died, but what it had
// written is still in the page cache.
func newDurability(dev blockdev.Device, bootID string, logger *slog.Logger) (*durability, error) {
	d := &durability{device: dev, bootID: bootID, logger: logger, attached: map[*itl]struct{}{}}
	d.marker, _ = dev.(blockdev.VolatileMarker)
	d.timer = time.AfterFunc(quietPeriod, d.tick)
	d.timer.Stop()
	if d.marker == nil {
		return d, nil
	}
	var err error
	if d.mark, err = d.marker.VolatileMark(); err != nil {
		return nil, fmt.Errorf("read the volatile mark: %w", err)
	}
	return d, d.resume()
}

func (d *durability) resume() error {
	d.suspect = len(d.mark.Lost) > 0 // also where the process died since
	if d.mark.BootID == "" && len(d.mark.Stages) == 0 {
		return nil
	}
	if d.mark.BootID == d.bootID {
		d.begun.Store(1) // what the process before wrote is not stable yet
		d.ended.Store(1)
		d.marked.Store(true)
		return nil
	}
	next := d.lostMark()
	d.logger.Warn("Writes of an earlier boot may be lost", "boot", d.mark.BootID, "stages", d.mark.Stages)
	if err := d.save(next); err != nil {
		return fmt.Errorf("remember the lost stages: %w", err)
	}
	return nil
}

// begin precedes a write that is not stable when it returns; end follows it.
// volatile says that it may be acknowledged so: then the mark is set before. On
// an error the write must not happen, and there is no end.
func (d *durability) begin(volatile bool) error {
	// Counting before looking at marked, while clear looks at the count after
	// it changed marked, leaves no gap between the two.
	d.begun.Add(1)
	if !volatile || d.marked.Load() {
		return nil
	}
	if err := d.setMark(); err != nil {
		d.ended.Add(1)
		return err
	}
	return nil
}

func (d *durability) end() { d.ended.Add(1) }

// dirty says that something may not be stable.
func (d *durability) dirty() bool { return d.begun.Load() != d.stable.Load() }

// setMark is the way that only the first of the writes after a clear goes.
func (d *durability) setMark() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.marked.Load() {
		return nil
	}
	if d.closed {
		return fmt.Errorf("logical unit: %w", blockdev.ErrClosed)
	}
	next := blockdev.VolatileMark{BootID: d.bootID, Stages: d.mark.Stages, Lost: d.mark.Lost}
	for l := range d.attached {
		if !l.lost.Load() {
			next.Stages = withStage(next.Stages, l.nexus.config.Stage)
		}
	}
	next.Stages = bounded(next.Stages, d.isAttached)
	if err := d.save(next); err != nil {
		return fmt.Errorf("set the volatile mark: %w", err)
	}
	d.marked.Store(true)
	return nil
}

// flush makes every write that ended before the call stable. Callers share a
// Sync. An error says that acknowledged writes may be gone; those concerned are
// lost by then.
func (d *durability) flush() error { return d.commit.wait(d.sync) }

// probe follows a failed WriteAtSync: where its Sync half failed, the device's
// Sync says so from then on.
func (d *durability) probe() { _ = d.flush() }

func (d *durability) sync() error {
	ended := d.ended.Load() // before begun: equal means that none is under way
	begun := d.begun.Load()
	if err := d.device.Sync(); err != nil {
		d.lose(err)
		return err
	}
	if ended == begun {
		d.stable.Store(begun)
	}
	if !d.dirty() && d.marked.Load() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.arm()
	}
	return nil
}

// lose makes every stage of the mark lost, first for the nexuses that are
// attached, then on stable storage; where that fails it is tried again.
func (d *durability) lose(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.suspect = true
	if len(d.mark.Stages) == 0 {
		return
	}
	d.logger.Error("Sync failed: acknowledged writes may be lost", "stages", d.mark.Stages, "err", cause)
	d.marked.Store(false)
	next := d.lostMark()
	for l := range d.attached {
		if slices.Contains(next.Lost, l.nexus.config.Stage) {
			l.lost.Store(true)
		}
	}
	if err := d.save(next); err != nil {
		d.logger.Error("Cannot remember the lost stages yet", "err", err)
		d.mark = next
		d.arm()
	}
}

// lostMark is the mark with all stages lost.
func (d *durability) lostMark() blockdev.VolatileMark {
	lost := d.mark.Lost
	for _, s := range d.mark.Stages {
		lost = withStage(lost, s)
	}
	return blockdev.VolatileMark{Lost: bounded(lost, d.isAttached)}
}

// attach admits a nexus: as lost where its stage is, else into the mark that is
// set.
func (d *durability) attach(l *itl) error {
	d.relieve()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attachments++
	stage := l.nexus.config.Stage
	l.lost.Store(slices.Contains(d.mark.Lost, stage))
	if d.suspect && !l.lost.Load() && d.allLost() {
		d.recover()
	}
	if !l.lost.Load() && d.mark.BootID != "" {
		if err := d.addStage(stage); err != nil {
			return err
		}
	}
	d.attached[l] = struct{}{}
	return nil
}

// relieve makes room in a mark that is full of stages: those that are not attached have
// seen nothing that a Sync from now on does not make stable. It leaves what it cannot
// drop, and errors to those who come upon them.
func (d *durability) relieve() {
	d.mu.Lock()
	full, attachments := len(d.mark.Stages) >= stageLimit, d.attachments
	d.mu.Unlock()
	if !full || d.flush() != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.attachments != attachments { // and may have gone again
		return
	}
	next := d.mark
	next.Stages = slices.DeleteFunc(slices.Clone(next.Stages), func(s blockdev.Stage) bool { return !d.isAttached(s) })
	if err := d.save(next); err != nil {
		d.logger.Error("Cannot drop stages from the volatile mark", "err", err)
	}
}

func (d *durability) addStage(stage blockdev.Stage) error {
	next := d.mark
	next.Stages = withStage(next.Stages, stage)
	if len(next.Stages) == len(d.mark.Stages) {
		return nil
	}
	next.Stages = bounded(next.Stages, d.isAttached) // never drops the newest
	if len(next.Stages) > stageLimit {
		return fmt.Errorf("%d stages have seen writes that are not flushed yet: flush the volume before another attaches",
			len(d.mark.Stages))
	}
	if err := d.save(next); err != nil {
		return fmt.Errorf("add a stage to the volatile mark: %w", err)
	}
	return nil
}

func (d *durability) detach(l *itl) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.attached, l)
}

// lostStages counts without waiting for whoever makes a mark durable.
func (d *durability) lostStages() int {
	if d.mu.TryLock() {
		d.lost.Store(int64(len(d.mark.Lost)))
		d.mu.Unlock()
	}
	return int(d.lost.Load())
}

func (d *durability) isAttached(s blockdev.Stage) bool {
	for l := range d.attached {
		if l.nexus.config.Stage == s {
			return true
		}
	}
	return false
}

// forget drops an initiator's stages once nothing of theirs can be lost any
// more without being known to be.
func (d *durability) forget(initiator string) error {
	exposed := d.exposed(initiator)
	if d.dirty() {
		if err := d.flush(); err != nil && exposed {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	over := func(s blockdev.Stage) bool { return s.Initiator == initiator && !d.isAttached(s) }
	next := d.mark
	next.Stages = slices.DeleteFunc(slices.Clone(next.Stages), over)
	next.Lost = slices.DeleteFunc(slices.Clone(next.Lost), over)
	if len(next.Stages) == len(d.mark.Stages) && len(next.Lost) == len(d.mark.Lost) && !d.unsaved {
		return nil
	}
	if len(next.Stages) == 0 {
		d.marked.Store(false)
		next.BootID = ""
	}
	if err := d.save(next); err != nil {
		return fmt.Errorf("drop stages from the volatile mark: %w", err)
	}
	return nil
}

// exposed says that the initiator may have seen what is not stable yet.
func (d *durability) exposed(initiator string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return names(d.mark.Stages, initiator)
}

// arm starts, or starts again, the quiet period. mu is held.
func (d *durability) arm() {
	if d.closed {
		return
	}
	if !d.timer.Reset(quietPeriod) {
		d.timers.Add(1)
	}
}

func (d *durability) tick() {
	defer d.timers.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	if err := d.tidy(); err != nil {
		d.arm()
	}
}

// tidy removes the mark of a clean unit, and saves a mark that could not be
// saved before.
func (d *durability) tidy() error {
	next := d.mark
	if d.clear() {
		next.BootID, next.Stages = "", nil
	} else if !d.unsaved {
		return nil
	}
	return d.save(next)
}

// clear ends the time in which volatile writes need no new mark; false says
// that there is no mark or that the unit is not clean.
func (d *durability) clear() bool {
	was := d.marked.Swap(false)
	if d.mark.BootID != "" && !d.dirty() {
		return true
	}
	d.marked.Store(was)
	return false
}

// save makes a mark durable. On an error the mark in memory stays, and whoever
// writes next must save first.
func (d *durability) save(m blockdev.VolatileMark) error {
	if d.marker != nil {
		if err := d.marker.SetVolatileMark(m); err != nil {
			d.unsaved = true
			d.marked.Store(false)
			return err
		}
	}
	d.mark, d.unsaved = m, false
	return nil
}

// close syncs, removes the mark where that succeeded and ends the timer.
func (d *durability) close() error {
	err := d.flush()
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		if d.timer.Stop() {
			d.timers.Done()
		}
		if saved := d.tidy(); err == nil {
			err = saved
		}
		d.marked.Store(false)
	}
	d.mu.Unlock()
	d.timers.Wait()
	if err != nil {
		return fmt.Errorf("close the logical unit: %w", err)
	}
	return nil
}
