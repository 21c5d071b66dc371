package session

import (
	"encoding/binary"
	"io"
	"math"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// cached is a disk behind a page cache, which may yet wait: a read that would ends with
// miss, if that is not nil.
type cached struct {
	*iscsitest.Gate
	miss error
}

func (cached) WritesToCache() bool { return true }

func (d cached) ReadAtNowait(p []byte, off int64) (int, error) {
	if d.Holds(iscsitest.ReadAt) {
		return 0, d.miss
	}
	return d.Device.ReadAt(p, off)
}

// onCached has a test's sites have such disks.
func onCached(t testing.TB) {
	behind(t, func(g *iscsitest.Gate) blockdev.Device { return cached{g, blockdev.ErrWouldBlock} })
}

// behind has a test's sites have a device in front of their disks.
func behind(t testing.TB, device func(*iscsitest.Gate) blockdev.Device) {
	before := front
	t.Cleanup(func() { front = before })
	front = device
}

// What holds for a disk whose calls all wait holds where the reader makes them itself, and
// where reads wait in a queue.
func TestOnCachedDisk(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"WriteSizes": TestWriteSizes, "DataOutOfOddLengths": TestDataOutOfOddLengths, "WriteResiduals": TestWriteResiduals,
		"AmountOfUnsolicitedData": TestAmountOfUnsolicitedData, "DataOutWithWrongFields": TestDataOutWithWrongFields,
		"OutstandingR2Ts": TestOutstandingR2Ts, "BurstsInterleaved": TestBurstsInterleaved,
		"FailureWaitsForAllBursts": TestFailureWaitsForAllBursts, "AbortWithSeveralBursts": TestAbortWithSeveralBursts,
		"MultiTaskAbortWaitsForData": TestMultiTaskAbortWaitsForData, "FastAbort": TestFastAbort, "NexusReset": TestNexusReset,
		"AbortOfARunningTask": TestAbortOfARunningTask, "AbortTaskSet": TestAbortTaskSet, "LogicalUnitReset": TestLogicalUnitReset,
		"ResetWithTAS": TestResetWithTAS, "QueueErrorAbortsTaskSet": TestQueueErrorAbortsTaskSet,
		"OrderedTask": TestOrderedTask, "HeadOfQueueTask": TestHeadOfQueueTask, "DormantTaskCollectsData": TestDormantTaskCollectsData,
		"ReadSizes": TestReadSizes, "ReadResiduals": TestReadResiduals, "ReadBudget": TestReadBudget, "Digests": TestDigests,
		"CommandsOverSeveralConnections": TestCommandsOverSeveralConnections, "ConnectionBreaks": TestConnectionBreaks,
		"NopOutWhileTheDeviceStalls": TestNopOutWhileTheDeviceStalls, "LogoutWithIOUnderWay": TestLogoutWithIOUnderWay,
	} {
		t.Run(name, func(t *testing.T) {
			onCached(t)
			test(t)
		})
		t.Run(name+"Fetching", func(t *testing.T) {
			behind(t, func(g *iscsitest.Gate) blockdev.Device { return cached{g, blockdev.ErrFetching} })
			test(t)
		})
		t.Run(name+"InTheBackground", func(t *testing.T) {
			onAside(t)
			test(t)
		})
	}
}

// A reader that does not come back from a write is left to it: another one goes on, which
// hands writes to workers until the first is back.
func TestReaderIsStuck(t *testing.T) {
	onCached(t)
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		r := newSite(t).joinOver(server, client, usual())
		for round := range 3 {
			stuck := r.dev.Hold(iscsitest.WriteAt)
			first := r.write1(1, byte(round))
			stuck.Await(t)
			start := time.Now()
			if err := r.Ping(time.Second); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took == 0 || took > 2*watchInterval {
				t.Errorf("another reader took over after %v", took)
			}
			second := r.write1(2, byte(round))
			stuck.Await(t)
			start = time.Now()
			r.Alive()
			if took := time.Since(start); took != 0 {
				t.Errorf("the next write kept the reader for %v", took)
			}
			stuck.Release()
			good(t, r.Wait(first))
			good(t, r.Wait(second))
			r.holds(1, pattern(byte(round), block))
			r.holds(2, pattern(byte(round), block))
			<-time.After(time.Second) // the reader writes by itself again
		}
	})
}

// The end of a connection does not wait for its reader, and its session for the call.
func TestStuckReaderAndTheEnd(t *testing.T) {
	onCached(t)
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		r := newSite(t).joinOver(server, client, usual())
		stuck := r.dev.Hold(iscsitest.WriteAt)
		r.write1(1, 1)
		stuck.Await(t)
		_ = client.Close()
		<-time.After(time.Minute)
		select {
		case <-r.s.Done():
			t.Error("the session ended before its call")
		default:
		}
		if _, err := server.Write([]byte{0}); err == nil {
			t.Error("the connection is still open")
		}
		stuck.Release()
		<-r.s.Done()
		if err := <-r.ended; err == nil {
			t.Error("no error")
		}
	})
}

// raw is a client that allocates nothing: it sends one command after the other, and takes
// answers of a length that is known.
type raw struct {
	testing.TB
	conn    net.Conn
	out, in []byte
}

func (r *rig) raw(cmd iscsitest.Command, answer int) *raw {
	h := r.Header(cmd, 1).Header()
	out := append(h[:], cmd.Out...)
	(*pdu.BHS)(out).SetDataLen(len(cmd.Out))
	return &raw{TB: r.TB, conn: r.Conn, out: out, in: make([]byte, pdu.BHSLen+answer)}
}

func (c *raw) do(cmdSN *uint32) {
	binary.BigEndian.PutUint32(c.out[24:], *cmdSN)
	binary.BigEndian.PutUint32(c.out[16:], *cmdSN)
	*cmdSN++
	if _, err := c.conn.Write(c.out); err != nil {
		c.Fatal(err)
	}
	if _, err := io.ReadFull(c.conn, c.in); err != nil {
		c.Fatal(err)
	}
	if status := c.in[3]; status != 0 {
		c.Fatalf("status %#02x", status)
	}
}

// A read of what is cached and a write to the cache cost no allocation. On a busy machine
// commands may be so far apart that the connection counts as idle, which has a price; what
// every command costs is in every attempt.
func TestCommandsAllocateNothing(t *testing.T) {
	onCached(t)
	r := newSite(t).join(usual())
	for name, c := range map[string]*raw{
		"read":  r.raw(iscsitest.Command{CDB: iscsitest.Read(0, 8), In: 4096}, 4096),
		"write": r.raw(iscsitest.Command{CDB: iscsitest.Write(0, 8), Out: pattern(1, 4096), Immediate: iscsitest.Most}, 0),
	} {
		least := math.Inf(1)
		for attempt := 0; attempt < 20 && least > 0; attempt++ {
			least = min(least, testing.AllocsPerRun(100, func() { c.do(&r.CmdSN) }))
		}
		if least > 0 {
			t.Errorf("%s: %v allocations", name, least)
		}
	}
}
