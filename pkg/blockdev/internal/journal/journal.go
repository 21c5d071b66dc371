// Package journal makes a write of one range all or nothing across the death of
// the process and of the machine, on any [Device] and in a file beside it.
//
// # Order of events
//
// The file has room for one entry, and its blocks from the day it is made.
//
//  1. The blocks of the range are reserved on the medium, and what it holds is
//     read: a full medium is found out, and an undo is possible, before
//     anything has changed.
//  2. The entry is written and synced: from here on the new data cannot be
//     lost. An entry that is not complete fails its checksum and is none; the
//     medium still holds the old data.
//  3. The data is written in place and synced. Where the power fails in the
//     middle the medium holds a mix, and the entry mends it. It must be stable
//     before the entry goes, or the mix could come to light without one.
//  4. The entry is made invalid, and that is synced before the call returns: an
//     entry that is still valid when a later write of the same blocks has
//     become stable would undo that one.
//
// Open replays a valid entry, steps 3 and 4, before anybody reads. Doing so twice
// does no harm.
//
// Where step 3 fails, what was read is written back and step 4 follows. Where
// step 4 fails, or the writing back, nobody knows what an Open would replay: no
// later write may be promised to be stable, so the Device is made to lose its
// Syncs (Lose) until Recover has replayed the entry.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"golang.org/x/sys/unix"
)

// Limit is the longest atomic write in bytes.
const Limit = 256 << 10

// Size is that of the file in bytes.
const Size = headBytes + Limit

// Device is what the journal works on, an [fd.Device].
type Device interface {
	blockdev.Device
	blockdev.SyncWriter
	blockdev.Recoverer
	// Reserve makes sure that a write of the range needs no more space.
	Reserve(off, n int64) error
	// Lose makes later Syncs fail with ErrLostWrites.
	Lose()
	// Lost says whether they do.
	Lost() bool
}

// Place is where the journal's file lies.
type Place struct {
	// Owner names the device; an entry of another owner is refused.
	Owner string
	// Name stands in errors, the file's path for example.
	Name string
	// Open opens the file for reading and writing; [fs.ErrNotExist] where
	// there is none.
	Open func() (*os.File, error)
	// Create makes the file anew, Size zeros that occupy their blocks, with
	// its name on stable storage; what is there already it replaces. Where
	// it fails it leaves none, or one without an entry.
	Create func() error
	// Before is asked before each step that changes something; nil allows
	// all. A test's power switch.
	Before func(Step) error
}

// Step is one of those that a power cut may come between.
type Step int

// The steps, each what Before is asked for.
const (
	WriteEntry  Step = iota // write the entry, or make it invalid
	SyncEntry               // make that stable
	WriteStable             // write in place, stable
)

// Journal serialises the atomic writes of one Device.
type Journal struct {
	device Device
	place  Place

	mu     sync.Mutex
	file   *os.File // nil until it is needed
	closed bool
	// written: there may be a head in the file.
	written bool
	// doubt: the file may hold an entry that no longer ought to be replayed,
	// or still ought to.
	doubt bool
}

// Open makes the journal of a device that nobody else uses yet, and completes a
// write that was interrupted.
func Open(d Device, p Place) (*Journal, error) {
	j := &Journal{device: d, place: p}
	if err := j.replay(); err != nil {
		return nil, errors.Join(err, j.closeFile())
	}
	return j, nil
}

// AtomicLimit is Limit.
func (j *Journal) AtomicLimit() int { return Limit }

// WriteAtomic writes all of p or nothing.
func (j *Journal) WriteAtomic(p []byte, off int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.admit(p, off); err != nil || len(p) == 0 {
		return err
	}
	old := buffers.Get().(*[Limit]byte)
	defer buffers.Put(old)
	if err := j.prepare(old[:len(p)], off); err != nil {
		return err
	}
	err := j.record(p, off)
	if err == nil {
		if err = j.writeStable(p, off); err != nil {
			err = j.undo(err, old[:len(p)], off)
		}
	}
	if !j.written || j.doubt {
		return err
	}
	return errors.Join(err, j.discard())
}

// buffers hold what a write replaces.
var buffers = sync.Pool{New: func() any { return new([Limit]byte) }}

func (j *Journal) admit(p []byte, off int64) error {
	switch {
	case j.closed:
		return j.failed(blockdev.ErrClosed)
	case j.doubt || j.device.Lost():
		return j.failed(blockdev.ErrLostWrites)
	case len(p) > Limit:
		return j.failed(fmt.Errorf("%d bytes are more than %d: %w", len(p), Limit, blockdev.ErrInvalid))
	}
	if err := blockdev.CheckRange(off, int64(len(p)), j.device.Size()); err != nil {
		return j.failed(err)
	}
	return nil
}

// prepare is step 1.
func (j *Journal) prepare(old []byte, off int64) error {
	if err := j.need(); err != nil {
		return err
	}
	if err := j.device.Reserve(off, int64(len(old))); err != nil {
		return err
	}
	_, err := j.device.ReadAt(old, off)
	return err
}

// need makes the file where there is none yet, or one that is too short.
func (j *Journal) need() error {
	if j.file != nil {
		return nil
	}
	err := j.openFile()
	if errors.Is(err, fs.ErrNotExist) {
		if err = j.place.Create(); err == nil {
			err = j.openFile()
		}
	}
	if err != nil {
		return j.failed(err)
	}
	return nil
}

// openFile opens the file; one that is not as long as it was made, since a power
// cut came in between, is none.
func (j *Journal) openFile() error {
	f, err := j.place.Open()
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != Size {
		err = fs.ErrNotExist
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	j.file = f
	return nil
}

// record is step 2.
func (j *Journal) record(p []byte, off int64) error {
	head := entryHead(j.place.Owner, p, off)
	return j.writeEntry(func() error {
		if _, err := j.file.WriteAt(p, headBytes); err != nil {
			return err
		}
		j.written = true
		_, err := j.file.WriteAt(head[:], 0)
		return err
	})
}

func (j *Journal) writeEntry(write func() error) error {
	steps := []struct {
		step Step
		do   func() error
	}{{WriteEntry, write}, {SyncEntry, j.syncFile}}
	for _, s := range steps {
		err := j.before(s.step)
		if err == nil {
			err = s.do()
		}
		if err != nil {
			return j.failed(err)
		}
	}
	return nil
}

func (j *Journal) syncFile() error {
	for {
		if err := unix.Fdatasync(int(j.file.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// writeStable is step 3.
func (j *Journal) writeStable(p []byte, off int64) error {
	if err := j.before(WriteStable); err != nil {
		return j.failed(err)
	}
	return j.device.WriteAtSync(p, off)
}

// discard is step 4.
func (j *Journal) discard() error {
	var none [headBytes]byte
	err := j.writeEntry(func() error {
		_, err := j.file.WriteAt(none[:], 0)
		return err
	})
	if err != nil {
		return j.lose(err)
	}
	j.written = false
	return nil
}

// undo writes back what was there before a write in place that failed, and
// returns why that was.
func (j *Journal) undo(err error, old []byte, off int64) error {
	if errors.Is(err, blockdev.ErrLostWrites) {
		return j.lose(err) // the entry is all that can be relied on
	}
	if undone := j.writeStable(old, off); undone != nil {
		return j.lose(errors.Join(err, undone))
	}
	return err
}

// lose says that nothing can be promised until Recover.
func (j *Journal) lose(err error) error {
	j.doubt = true
	j.device.Lose()
	if errors.Is(err, blockdev.ErrLostWrites) {
		return err
	}
	return fmt.Errorf("%w: %w", blockdev.ErrLostWrites, err)
}

// Recover is the Device's; what a write left undone it does.
func (j *Journal) Recover() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.device.Recover(); err != nil {
		return err
	}
	if !j.doubt {
		return nil
	}
	j.doubt = false
	if err := j.replay(); err != nil {
		return j.lose(err)
	}
	return nil
}

// replay completes the write of a valid entry, where there is one.
func (j *Journal) replay() error {
	if j.file == nil {
		if err := j.openFile(); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return j.failed(err)
		}
	}
	p, off, err := readEntry(j.file, j.place.Owner, j.device.Size())
	if err != nil {
		return j.failed(err)
	}
	if p == nil && !j.written {
		return nil
	}
	if p == nil {
		return j.discard()
	}
	if err := j.writeStable(p, off); err != nil {
		return j.failed(fmt.Errorf("complete the interrupted write of %d bytes at %d: %w", len(p), off, err))
	}
	return j.discard()
}

// Close ends the use of the journal, after the write that is under way. It does
// not close the Device.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	return j.closeFile()
}

func (j *Journal) closeFile() error {
	if j.file == nil {
		return nil
	}
	f := j.file
	j.file = nil
	return f.Close()
}

func (j *Journal) before(s Step) error {
	if j.place.Before == nil {
		return nil
	}
	return j.place.Before(s)
}

func (j *Journal) failed(err error) error {
	return fmt.Errorf("%s: atomic write: %w", j.place.Name, fd.Errno(err))
}
