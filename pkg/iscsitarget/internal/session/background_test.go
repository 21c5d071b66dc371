package session

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// aside is a disk that reads in the background, as soon as its gate lets it.
type aside struct {
	*iscsitest.Gate
	refuses, fails, atOnce atomic.Bool
	begun, told            atomic.Int64 // reads

	mu    sync.Mutex
	ended []func()
	left  bool
	late  int // reads that had ended when they were left
}

func (d *aside) BeginRead(p []byte, off int64, done blockdev.ReadDone) bool {
	if d.refuses.Load() {
		return false
	}
	d.mu.Lock()
	d.left = false
	d.mu.Unlock()
	d.begun.Add(1)
	read := func() {
		_, err := d.ReadAt(p, off)
		d.mu.Lock()
		d.ended = append(d.ended, func() {
			done.ReadDone(err == nil && !d.fails.Load())
			d.told.Add(1)
			done.Flush()
		})
		left := d.left
		d.mu.Unlock()
		if left {
			d.Reap()
		}
	}
	if d.atOnce.Load() {
		read()
	} else {
		go read() // the end of the session waits for it
	}
	return true
}

func (d *aside) Reap() bool {
	d.mu.Lock()
	ended := d.ended
	d.ended = nil
	d.mu.Unlock()
	for _, tell := range ended {
		tell()
	}
	return len(ended) > 0
}

func (d *aside) Leave() {
	d.mu.Lock()
	d.left = true
	d.late += len(d.ended)
	d.mu.Unlock()
	go d.Reap() // which ended before
}

// onAside has a test's sites have such a disk, the last of which it returns.
func onAside(t testing.TB) func() *aside {
	var d *aside
	behind(t, func(g *iscsitest.Gate) blockdev.Device {
		d = &aside{Gate: g}
		return d
	})
	return func() *aside { return d }
}

// However few workers there are, the device has all reads at once, and what comes
// meanwhile is answered.
func TestReadsInTheBackground(t *testing.T) {
	disk := onAside(t)
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t)
		st.cfg.Workers = 1
		server, client := net.Pipe()
		r := st.joinOver(server, client, usual())
		r.fill(0, pattern(1, 100*block))
		hold := r.dev.Hold(iscsitest.ReadAt)
		var tags []uint32
		for lba := range 40 {
			tags = append(tags, r.read1(lba))
		}
		synctest.Wait()
		if n := disk().begun.Load(); n != 40 {
			t.Errorf("the device has %d reads", n)
		}
		r.Alive()
		hold.Release()
		for lba, itt := range tags {
			r.gets(itt, lba)
		}
	})
}

// The reader itself answers what has ended by the time that it has nothing else to do, and
// leaves the rest.
func TestReaderReaps(t *testing.T) {
	disk := onAside(t)
	r := newSite(t).join(usual())
	r.fill(0, pattern(1, 100*block))
	d := disk()
	d.atOnce.Store(true)
	for lba := range 10 {
		r.gets(r.read1(lba), lba)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.late > 0 {
		t.Errorf("%d reads were left that had ended", d.late)
	}
}

// A read that the device does not take, that fails there, or that is longer than a buffer
// a worker does.
func TestReadNotInTheBackground(t *testing.T) {
	disk := onAside(t)
	r := newSite(t).join(usual())
	r.fill(0, pattern(1, 100*block))
	d := disk()
	d.refuses.Store(true)
	r.gets(r.read1(1), 1)
	d.refuses.Store(false)
	d.fails.Store(true)
	r.gets(r.read1(2), 2)
	if n := d.begun.Load(); n != 1 {
		t.Errorf("the device had %d reads", n)
	}
	d.fails.Store(false)
	const n = 2 * maxBuffer
	r.fill(0, pattern(3, n))
	itt := r.Start(iscsitest.Command{CDB: iscsitest.Read(0, n/block), In: n})
	r.gets(itt, 0)
	if d.begun.Load() != 1 {
		t.Error("a long read was one of the device's")
	}
}

// An initiator that takes nothing keeps nobody who tells of reads.
func TestBackgroundReadsOfASlowInitiator(t *testing.T) {
	disk := onAside(t)
	r := newSite(t).join(usual())
	const n = 200 << 10
	r.fill(0, pattern(1, n))
	var tags []uint32
	for range 100 { // more than the socket takes, and the session may have in memory
		tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.Read(0, n/block), In: n}))
	}
	d := disk()
	all := func() bool {
		// The reader has all commands, or waits for room.
		next, _ := r.s.window.advertised()
		begun := d.begun.Load()
		return (next == r.CmdSN || r.c.outbox.backedUp()) && begun > 0 && d.told.Load() == begun
	}
	for end := time.Now().Add(iscsitest.Timeout); !all(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("of %d reads %d were told of", d.begun.Load(), d.told.Load())
		}
	}
	for _, itt := range tags {
		r.gets(itt, 0)
	}
}

// The end of a session waits for what the device has, and aborted reads get no answer.
func TestEndWithReadsInTheBackground(t *testing.T) {
	onAside(t)
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		r := newSite(t).joinOver(server, client, usual())
		hold := r.dev.Hold(iscsitest.ReadAt)
		aborted := r.read1(1)
		synctest.Wait()
		r.manageTask(pdu.AbortTask, iscsitest.LUN(0), aborted)
		synctest.Wait()
		r.read1(2)
		r.read1(3)
		r.Alive()
		r.s.Close()
		synctest.Wait()
		select {
		case <-r.s.Done():
			t.Error("the session has ended with reads under way")
		default:
		}
		hold.Release()
		<-r.s.Done()
		if r.Ended(aborted) {
			t.Error("an aborted read got a status")
		}
	})
}
