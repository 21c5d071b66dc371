package session

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/mem"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// slow is a medium of blocks that come into memory when the test says so; those that
// were asked for are in asked.
type slow struct {
	*iscsitest.Gate
	mu     sync.Mutex
	asked  map[int64]bool
	come   map[int64]bool
	soon   int64 // this block has come when it is asked for the second time
	change *sync.Cond
}

func newSlow(g *iscsitest.Gate) *slow {
	d := &slow{Gate: g, soon: -1, asked: map[int64]bool{}, come: map[int64]bool{}}
	d.change = sync.NewCond(&d.mu)
	return d
}

func (d *slow) ReadAtNowait(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lba := off / block
	d.asked[lba] = true
	if !d.come[lba] {
		d.come[lba] = lba == d.soon
		return 0, blockdev.ErrFetching
	}
	return d.Device.ReadAt(p, off)
}

// ReadAt waits until the block has come.
func (d *slow) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lba := off / block
	for d.asked[lba] = true; !d.come[lba]; {
		d.change.Wait()
	}
	return d.Device.ReadAt(p, off)
}

func (d *slow) arrive(lbas ...int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, lba := range lbas {
		d.come[lba] = true
	}
	d.change.Broadcast()
}

func (d *slow) isAsked(lba int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[lba]
}

// onSlow runs a test with a session on such a medium, and no worker but one.
func onSlow(t *testing.T, test func(t *testing.T, r *rig, d *slow)) {
	var d *slow
	behind(t, func(g *iscsitest.Gate) blockdev.Device { d = newSlow(g); return d })
	synctest.Test(t, func(t *testing.T) {
		st := newSite(t)
		st.cfg.Workers = 1
		server, client := net.Pipe()
		r := st.joinOver(server, client, usual())
		t.Cleanup(func() {
			for lba := range int64(100) {
				d.arrive(lba) // or the end of the session would wait for ever
			}
		})
		r.fill(0, pattern(1, 100*block))
		test(t, r, d)
	})
}

func (r *rig) read1(lba int) (itt uint32) {
	return r.Start(iscsitest.Command{CDB: iscsitest.Read(lba, 1), In: block})
}

func (r *rig) gets(itt uint32, lba int) {
	r.Helper()
	got := r.Wait(itt)
	good(r, got)
	r.holds(lba, got.Data)
}

// The medium works for all reads at once, however few workers there are. Those whose data
// has come end, whatever keeps the others, and what is in memory waits for none.
func TestReadsAreFetchedTogether(t *testing.T) {
	onSlow(t, func(t *testing.T, r *rig, d *slow) {
		const n = 40
		var tags []uint32
		for lba := range n {
			tags = append(tags, r.read1(lba))
		}
		synctest.Wait()
		for lba := range int64(n) {
			if !d.isAsked(lba) {
				t.Errorf("block %d is not asked for", lba)
			}
		}
		d.arrive(99)
		r.gets(r.read1(99), 99)
		r.Alive()
		d.arrive(0, 5, 3)
		for _, lba := range []int{0, 3, 5} {
			r.gets(tags[lba], lba)
		}
		for lba := range int64(n) {
			d.arrive(lba)
		}
		for lba := range n {
			if lba != 0 && lba != 3 && lba != 5 {
				r.gets(tags[lba], lba)
			}
		}
		synctest.Wait()
		f := &r.s.fetchers
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := f.pending.Load(); n != 0 || len(f.of) != 0 {
			t.Errorf("%d reads are pending, of %d units", n, len(f.of))
		}
	})
}

// A read that waits for the medium is aborted without it.
func TestAbortOfAFetchedRead(t *testing.T) {
	onSlow(t, func(t *testing.T, r *rig, d *slow) {
		first, second := r.read1(1), r.read1(2)
		synctest.Wait() // for the first somebody waits
		r.manages(pdu.TMFComplete, pdu.AbortTask, iscsitest.LUN(0), second)
		d.arrive(1)
		r.gets(first, 1)
		third := r.read1(3)
		synctest.Wait()
		tag := r.manageTask(pdu.AbortTaskSet, iscsitest.LUN(0), 0)
		synctest.Wait() // it is taken in, or the data could be there first
		d.arrive(3)
		if got := r.answered(tag); got != pdu.TMFComplete {
			t.Errorf("response %d", got)
		}
		r.Alive()
		if r.Ended(third) || r.Ended(second) {
			t.Error("an aborted read got a status")
		}
	})
}

// A medium that stalls keeps the reads of no other one.
func TestOtherUnitsAreFetched(t *testing.T) {
	onSlow(t, func(t *testing.T, r *rig, d *slow) {
		disk, err := mem.New(1<<20, block)
		if err != nil {
			t.Fatal(err)
		}
		other := newSlow(iscsitest.NewGate(disk))
		unit, err := scsi.NewUnit(scsi.UnitConfig{Device: other, Serial: "T"})
		if err != nil {
			t.Fatal(err)
		}
		defer unit.Close()
		if err := r.inventory.Add(1, unit); err != nil {
			t.Fatal(err)
		}
		for _, lun := range [][8]byte{iscsitest.LUN(0), iscsitest.LUN(1)} {
			for r.Do(iscsitest.Command{LUN: lun, CDB: make([]byte, 6)}).Status != scsi.Good { // attentions
			}
		}
		stalled := r.read1(1)
		synctest.Wait()
		itt := r.Start(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: iscsitest.Read(7, 1), In: block})
		synctest.Wait()
		other.arrive(7)
		good(t, r.Wait(itt))
		d.arrive(1)
		r.gets(stalled, 1)
	})
}

// partLen is the length of a Data-In of inParts.
const partLen = 8 << 10

// inParts has a read of n parts wait for the first.
func (r *rig) inParts(n int) (itt uint32) {
	r.c.maxSend.Store(partLen)
	itt = r.Start(iscsitest.Command{CDB: iscsitest.Read(0, n*partLen/block), In: uint32(n) * partLen})
	synctest.Wait()
	return itt
}

// Parts of a read that have come are sent, and the rest when it comes.
func TestPartsAreFetched(t *testing.T) {
	onSlow(t, func(t *testing.T, r *rig, d *slow) {
		itt := r.inParts(3)
		d.arrive(0)
		if err := r.Step(); err != nil {
			t.Fatal(err)
		}
		d.arrive(partLen/block, 2*partLen/block)
		got := r.Wait(itt)
		good(t, got)
		r.holds(0, got.Data)
		if got.DataIns != 3 {
			t.Errorf("%d Data-Ins", got.DataIns)
		}
	})
}

// A reader that has ended all of its reads waits for something else, while another part of
// a read that somebody waits for has yet to come.
func TestPartsAreFetchedBesideOthers(t *testing.T) {
	onSlow(t, func(t *testing.T, r *rig, d *slow) {
		itt := r.inParts(2)
		d.mu.Lock()
		d.soon = 50
		d.mu.Unlock()
		r.gets(r.read1(50), 50)
		synctest.Wait()
		d.arrive(0)
		synctest.Wait()
		d.arrive(partLen / block)
		got := r.Wait(itt)
		good(t, got)
		r.holds(0, got.Data)
	})
}

// half has the half of a PDU come just when the reader looks whether there is something.
type half struct {
	net.Conn
	nowaiter
	once sync.Once
	send func()
}

func (h *half) Readable() bool {
	h.once.Do(h.send)
	return h.nowaiter.Readable()
}

// Half a PDU keeps no read from its end.
func TestHalfAPDUBesideFetchedReads(t *testing.T) {
	var d *slow
	behind(t, func(g *iscsitest.Gate) blockdev.Device { d = newSlow(g); return d })
	server, client := tcpPair(t)
	ping := pdu.NopOut{Immediate: true, ITT: 77, TTT: pdu.NoTag, CmdSN: 1, ExpStatSN: 1}.Header()
	seen := make(chan struct{})
	conn := &half{Conn: server, nowaiter: server.(nowaiter), send: func() {
		if _, err := client.Write(ping[:20]); err != nil {
			t.Error(err)
		}
		close(seen)
	}}
	r := newSite(t).joinOver(conn, client, usual())
	r.fill(0, pattern(1, 10*block))
	itt := r.read1(1)
	<-seen
	d.arrive(1)
	r.gets(itt, 1)
	if err := r.SendRaw(ping[20:]); err != nil {
		t.Fatal(err)
	}
	r.Expect(pdu.OpNopIn)
}

// A long read has a worker of its own.
func TestLongReadIsNotFetched(t *testing.T) {
	onSlow(t, func(t *testing.T, r *rig, d *slow) {
		const blocks = 2 * maxFetch / block
		itt := r.Start(iscsitest.Command{CDB: iscsitest.Read(0, blocks), In: blocks * block})
		short := r.read1(50)
		synctest.Wait()
		if n := r.s.fetchers.pending.Load(); n != 0 { // the short one is in hand
			t.Errorf("%d reads are pending", n)
		}
		d.arrive(50)
		r.gets(short, 50)
		d.arrive(0)
		good(t, r.Wait(itt))
	})
}

// The end of a session does not wait for what has not come, but for the one call that does.
func TestEndWithFetchedReads(t *testing.T) {
	onSlow(t, func(t *testing.T, r *rig, d *slow) {
		for lba := range 20 {
			r.read1(lba)
		}
		synctest.Wait()
		r.s.Close()
		synctest.Wait()
		select {
		case <-r.s.Done():
			t.Error("the session ended before its call")
		default:
		}
		if n := r.s.fetchers.pending.Load(); n != 0 {
			t.Errorf("%d reads are still pending", n)
		}
		d.arrive(0)
		<-r.s.Done()
	})
}

// Over TCP a reader that has commands in hand looks after its reads by itself.
func TestReaderAttendsToFetchedReads(t *testing.T) {
	var d *slow
	behind(t, func(g *iscsitest.Gate) blockdev.Device { d = newSlow(g); return d })
	r := newSite(t).join(usual())
	r.fill(0, pattern(1, 2000*block))
	for lba := 0; lba < 2000; {
		var tags []uint32
		for range 100 {
			tags = append(tags, r.read1(lba))
			d.arrive(int64(lba - 3))
			lba++
		}
		d.arrive(int64(lba-3), int64(lba-2), int64(lba-1))
		for i, itt := range tags {
			r.gets(itt, lba-100+i)
		}
	}
}
