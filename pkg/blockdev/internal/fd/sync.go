package fd

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"golang.org/x/sys/unix"
)

// flush serialises a device's fdatasync calls. Two at once would share one
// report: the kernel tells an open file of a lost page once, so that the
// second could return nil although its writes are gone.
type flush struct {
	turn    sync.Mutex
	started atomic.Uint64 // calls begun
	done    uint64        // the last one that ended well; under turn
	lost    atomic.Bool   // one failed: no later one can be believed
}

// Sync returns nil once all earlier writes are stable. Callers that wait
// while another's fdatasync runs share the next one.
func (d *Device) Sync() error {
	if err := d.enter(0, 0); err != nil {
		return err
	}
	defer d.life.RUnlock()
	return d.sync()
}

// sync is Sync for a caller that has entered.
func (d *Device) sync() error {
	// A call that begins after this line covers everything we wrote.
	want := d.flush.started.Load() + 1
	d.flush.turn.Lock()
	defer d.flush.turn.Unlock()
	if d.flush.lost.Load() {
		return d.errLost()
	}
	if d.flush.done >= want {
		return nil
	}
	number := d.flush.started.Add(1)
	if err := d.fdatasync(); err != nil {
		d.flush.lost.Store(true)
		return fmt.Errorf("%w: %w", d.errLost(), Errno(err))
	}
	d.flush.done = number
	return nil
}

func (d *Device) fdatasync() error {
	for {
		if err := d.o.Calls.Fdatasync(d.fd); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (d *Device) errLost() error {
	return fmt.Errorf("%s: sync: %w", d.o.Name, blockdev.ErrLostWrites)
}

// Lose makes every later Sync and WriteAtSync fail with ErrLostWrites, until
// Recover: what they would promise could not be kept.
func (d *Device) Lose() { d.flush.lost.Store(true) }

// Lost says whether Sync is ErrLostWrites.
func (d *Device) Lost() bool { return d.flush.lost.Load() }

// Recover makes later Syncs believable again. The kernel marks the pages that it
// could not write clean and keeps them: they show what is not on the medium
// until memory runs short. So it first writes what is dirty, and then drops all
// that is cached; no other call is under way meanwhile.
func (d *Device) Recover() error {
	d.life.Lock()
	defer d.life.Unlock()
	if d.closed {
		return d.errClosed()
	}
	_ = d.fdatasync() // takes the reports of losses that are known or not
	if err := d.fdatasync(); err != nil {
		return fmt.Errorf("%s: recover: %w: %w", d.o.Name, blockdev.ErrLostWrites, Errno(err))
	}
	if err := d.o.Calls.DropCache(d.fd); err != nil {
		return fmt.Errorf("%s: recover: drop the cache: %w", d.o.Name, err)
	}
	d.flush.lost.Store(false)
	return nil
}

// WriteAtSync writes p and returns when it is stable. Where pwritev2 fails in
// any way it falls back to a write and a Sync: the report of a lost page that
// this call consumed was its own handle's, Sync's descriptor still has one.
func (d *Device) WriteAtSync(p []byte, off int64) error {
	if err := d.enter(off, int64(len(p))); err != nil {
		return err
	}
	defer d.life.RUnlock()
	if d.flush.lost.Load() {
		return d.errLost()
	}
	if d.writeStable(p, off) == nil {
		return nil
	}
	if _, err := d.write(p, off); err != nil {
		return err
	}
	return d.sync()
}

func (d *Device) writeStable(p []byte, off int64) error {
	h, err := d.stable.take()
	if err != nil {
		return err
	}
	defer d.stable.put(h)
	for len(p) > 0 {
		n, err := d.pwriteStable(h, p, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EIO
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}
