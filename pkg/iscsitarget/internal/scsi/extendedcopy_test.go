package scsi

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/raw"
)

// devices are a disk as each kind of device that a copy may meet.
func devices(d *disk) map[string]blockdev.Device {
	refusing := newCopyDisk(d)
	*refusing.refuses = true
	return map[string]blockdev.Device{"plain": d, "copies": newCopyDisk(d), "refuses": refusing}
}

func TestExtendedCopy(t *testing.T) {
	both := joined(byNAA(naaFirst), byNAA(naaSecond))
	t10 := append([]byte{cscdIdentification, 0, 0, 0, codeSetASCII, designatorT10, 0, 12}, append([]byte("CSI-IETDid-2"), make([]byte, 12)...)...)
	for _, x := range []struct {
		name            string
		cscds, segments []byte
		// moves are source block, destination block and blocks, to LUN 1
		// or within LUN 0.
		within bool
		moves  [][3]int
	}{
		{"between", both, blockToBlock(0, 0, 1, 5, 2, 9), false, [][3]int{{2, 9, 5}}},
		{"all", both, blockToBlock(0, 0, 1, 1500, 0, 0), false, [][3]int{{0, 0, 1500}}},
		{"DC", both, blockToBlock(2, 0, 1, 5, 2, 9), false, [][3]int{{2, 9, 5}}},
		{"CAT", both, blockToBlock(1, 0, 1, 5, 2, 9), false, [][3]int{{2, 9, 5}}},
		{"three segments", both, joined(blockToBlock(0, 0, 1, 1, 2, 9), blockToBlock(0, 0, 1, 0, 2, 9), blockToBlock(0, 0, 1, 600, 7, 20)),
			false, [][3]int{{2, 9, 1}, {7, 20, 600}}},
		{"this unit", byNAA(naaSecond), blockToBlock(0, 0xFFFF, 0, 3, 0, 1497), false, [][3]int{{0, 1497, 3}}},
		{"T10 designator", t10, blockToBlock(0, 0xFFFF, 0, 3, 0, 1), false, [][3]int{{0, 1, 3}}},
		{"within", byNAA(naaFirst), blockToBlock(0, 0, 0, 5, 2, 9), true, [][3]int{{2, 9, 5}}},
		{"overlap upwards", nil, blockToBlock(0, 0xFFFF, 0xFFFF, 1400, 0, 100), true, [][3]int{{0, 100, 1400}}},
		{"overlap downwards", nil, blockToBlock(0, 0xFFFF, 0xFFFF, 1400, 100, 0), true, [][3]int{{100, 0, 1400}}},
		{"onto itself", nil, blockToBlock(0, 0xFFFF, 0xFFFF, 1500, 0, 0), true, nil},
		{"nothing", nil, nil, true, nil},
		{"no segment", both, nil, true, nil},
		{"no blocks at the end", both, blockToBlock(0, 0, 1, 0, 1500, 1500), false, nil},
	} {
		for action, list := range [][]byte{list1(7, 0, x.cscds, x.segments), list4(7, 0, x.cscds, x.segments)} {
			for kind := range devices(anyDisk) {
				t.Run(x.name+"/"+kind, func(t *testing.T) {
					testCopy(t, kind, byte(action), list, x.within, x.moves)
				})
			}
		}
	}
}

var (
	anyDisk = newDisk(1, 512)
	// longDisks are what every case of a long copy begins with.
	longDisks = [2][]byte{newDisk(1500, 512).now, pattern(1500 * 512)}
)

func longDisk(i int) *disk {
	return &disk{block: 512, now: bytes.Clone(longDisks[i]), stable: bytes.Clone(longDisks[i]), dirty: map[int]bool{}}
}

func testCopy(t *testing.T, kind string, action byte, list []byte, within bool, moves [][3]int) {
	a, b := longDisk(0), longDisk(1)
	r := newCopyRig(t, devices(a)[kind], devices(b)[kind])
	from := bytes.Clone(a.now)
	changed, kept := b, a
	if within {
		changed, kept = a, b
	}
	want, untouched := bytes.Clone(changed.now), bytes.Clone(kept.now)
	for _, m := range moves {
		copy(want[m[1]*512:(m[1]+m[2])*512], from[m[0]*512:])
	}
	r.expect("good", copyCDB(action, len(list)), list...)
	holds(t, changed, want, 0, nil)
	holds(t, kept, untouched, 0, nil)
}

// Blocks of either length arrive where the other unit has them.
func TestExtendedCopyBetweenBlockLengths(t *testing.T) {
	for _, x := range []struct {
		segment []byte
		want    string
		at      int64 // of the destination, in bytes
	}{
		{blockToBlock(0, 0, 1, 16, 8, 3), "good", 3 * 4096},
		{blockToBlock(2, 0, 1, 2, 8, 3), "good", 3 * 4096},
		{blockToBlock(0, 0, 1, 9, 8, 3), "A/260A", 0},
		{blockToBlock(0, 0, 1, 8, 8, 10), "A/0D02", 0},
	} {
		a, b := newDisk(80, 512), newDisk(10, 4096)
		copy(b.now, pattern(len(b.now)))
		want := bytes.Clone(b.now)
		r := newCopyRig(t, a, b)
		if x.want == "good" {
			copy(want[x.at:], a.now[8*512:8*512+8192])
		}
		list := list1(7, 0, joined(byNAA(naaFirst), byNAA(naaSecond)), x.segment)
		r.expect(x.want, copyCDB(0, len(list)), list...)
		holds(t, b, want, 0, nil)
	}
}

func TestExtendedCopyOffloads(t *testing.T) {
	d := newCopyDisk(newDisk(1500, 512))
	r := newRig(t, d)
	list := list1(7, 0, nil, blockToBlock(0, 0xFFFF, 0xFFFF, 700, 0, 700))
	r.expect("good", copyCDB(0, len(list)), list...)
	if d.calls.Load() != 1 {
		t.Errorf("%d calls of CopyFrom", d.calls.Load())
	}
	*d.refuses = true
	r.expect("good", copyCDB(0, len(list)), list...)
	if d.calls.Load() != 2 { // and then no more for this command
		t.Errorf("%d calls of CopyFrom", d.calls.Load())
	}
}

func TestExtendedCopyRefusals(t *testing.T) {
	both := joined(byNAA(naaFirst), byNAA(naaSecond))
	good := blockToBlock(0, 0, 1, 5, 2, 9)
	edit := func(b []byte, at int, v ...byte) []byte { b = bytes.Clone(b); copy(b[at:], v); return b }
	many := func(n int, b []byte) []byte { return bytes.Repeat(b, n) }
	a, b := newDisk(64, 512), newDisk(64, 512)
	r := newCopyRig(t, a, b)
	first, other := bytes.Clone(a.now), bytes.Clone(b.now)
	for _, x := range []struct {
		name   string
		action byte
		list   []byte
		want   string
	}{
		{"reserved LIST ID USAGE", 0, list1(7, 1<<3, both, good), "5/2600 param 1 bit 4"},
		{"no list id, and one", 0, list1(7, 3<<3, both, good), "5/2600 param 0 bit 7"},
		{"inline data", 0, append(edit(list1(7, 0, both, good), 15, 4), 1, 2, 3, 4), "5/260B"},
		{"inline data that is not there", 0, edit(list1(7, 0, both, good), 15, 4), "5/1A00"},
		{"CSCDs cut", 0, list1(7, 0, both[:40], good), "5/2600 param 2 bit 7"},
		{"segments cut", 0, list1(7, 0, both, good[:27]), "5/1A00"},
		{"CSCD list longer than the list", 0, edit(list1(7, 0, both, good), 2, 0, 0x60), "5/1A00"},
		{"segment list longer than any", 0, edit(list1(7, 0, both, good), 8, 0xFF, 0xFF, 0xFF, 0xFF), "5/1A00"},
		{"too many CSCDs", 0, list1(7, 0, many(maxCSCDs+1, byNAA(naaFirst)), good), "5/2606"},
		{"too many segments", 0, list1(7, 0, both, many(maxSegments+1, good)), "5/2608"},
		{"longer than MAXIMUM DESCRIPTOR LIST LENGTH", 0, list1(7, 0, many(maxCSCDs, byNAA(naaFirst)), many(maxSegments+1, good)), "5/1A00"},
		{"CSCD type", 0, list1(7, 0, edit(both, 0, 0xE0), good), "5/2607"},
		{"segment type", 0, list1(7, 0, both, edit(good, 0, 3)), "5/2609"},
		{"segment length", 0, list1(7, 0, both, edit(good, 3, 0x14)), "5/2600 param 82 bit 7"},
		{"designator length", 0, list1(7, 0, edit(both, 7, 21), good), "5/2600 param 23 bit 7"},
		{"device type", 0, list1(7, 0, edit(both, 1, 1), good), "A/0D03"},
		{"block length", 0, list1(7, 0, edit(both, 30, 0x10), good), "A/260C"},
		{"no such unit", 0, list1(7, 0, joined(byNAA(naaAbsent), byNAA(naaSecond)), good), "A/0D02"},
		{"designator of another kind", 0, list1(7, 0, edit(both, 5, designatorT10), good), "A/0D02"},
		{"designator of a port", 0, list1(7, 0, edit(both, 5, 0x13), good), "A/0D02"},
		{"designator in another code set", 0, list1(7, 0, edit(both, 4, codeSetASCII), good), "A/0D02"},
		{"designator cut", 0, list1(7, 0, edit(both, 7, 7), good), "A/0D02"},
		{"source id", 0, list1(7, 0, both, edit(good, 5, 2)), "A/0D02"},
		{"destination id", 0, list1(7, 0, both, edit(good, 7, 2)), "A/0D02"},
		{"source past the end", 0, list1(7, 0, both, blockToBlock(0, 0, 1, 5, 60, 9)), "A/0D02"},
		{"destination past the end", 0, list1(7, 0, both, blockToBlock(0, 0, 1, 5, 2, 60)), "A/0D02"},
		{"address that overflows", 0, list1(7, 0, both, blockToBlock(0, 0, 1, 5, 1<<64-1, 9)), "A/0D02"},
		{"LID4 format", 1, edit(list4(7, 0, both, good), 0, 2), "5/2600 param 0 bit 7"},
		{"LID4 header list length", 1, edit(list4(7, 0, both, good), 3, 0x1F), "5/2600 param 2 bit 7"},
		{"LID4 header descriptor", 1, edit(list4(7, 0, both, good), 16, 0xE4), "5/2600 param 16 bit 7"},
		{"LID4 no list id, and one", 1, list4(7, 3<<3, both, good), "5/2600 param 20 bit 7"},
		{"LID4 CSCDs cut", 1, list4(7, 0, both[:40], good), "5/2600 param 42 bit 7"},
	} {
		t.Run(x.name, func(t *testing.T) {
			r.TB = t
			r.expect(x.want, copyCDB(x.action, len(x.list)), x.list...)
			holds(t, a, first, 0, nil)
			holds(t, b, other, 0, nil)
		})
	}
	r.TB = t
	r.expect("good", copyCDB(0, 0))
	r.expect("5/1A00", copyCDB(0, 15), make([]byte, 15)...)
	r.expect("5/1A00", copyCDB(0, 16+maxCopyListBytes+1))
	r.expect("5/1A00", copyCDB(1, 48+maxCopyListBytes+1))
	r.expect("5/2400 byte 1 bit 4", copyCDB(2, 16))
}

// A list that is cut anywhere changes nothing.
func TestExtendedCopyTruncated(t *testing.T) {
	a, b := newDisk(64, 512), newDisk(64, 512)
	r := newCopyRig(t, a, b)
	first, other := bytes.Clone(a.now), bytes.Clone(b.now)
	cscds := joined(byNAA(naaFirst), byNAA(naaSecond))
	segments := joined(blockToBlock(0, 0, 1, 5, 2, 9), blockToBlock(0, 0, 1, 5, 2, 20))
	for action, list := range [][]byte{list1(7, 0, cscds, segments), list4(7, 0, cscds, segments)} {
		for n := range list {
			c := r.nexus.Decode([8]byte{}, Simple, parse(t, copyCDB(byte(action), len(list))))
			if _, st := c.Execute(t.Context(), list[:n]); text(st) != "5/1A00" {
				t.Errorf("%d bytes: %s", n, text(st))
			}
		}
	}
	holds(t, a, first, 0, nil)
	holds(t, b, other, 0, nil)
}

// A copy reaches the units that its nexus sees, whatever else the process exports.
func TestExtendedCopyIsConfined(t *testing.T) {
	a, b := newDisk(64, 512), newDisk(64, 512)
	r := newCopyRig(t, a, b)
	elsewhere := newDisk(64, 512)
	stranger := newLonelyRig(t, elsewhere, func(c *UnitConfig) { c.NAA = naaAbsent })
	stranger.nexus = stranger.attach(NexusConfig{})
	first, other, foreign := bytes.Clone(a.now), bytes.Clone(b.now), bytes.Clone(elsewhere.now)
	refused := func(name string, naa uint64) {
		t.Helper()
		for _, segment := range [][]byte{blockToBlock(0, 0xFFFF, 0, 5, 2, 9), blockToBlock(0, 0, 0xFFFF, 5, 2, 9)} {
			list := list1(7, 0, byNAA(naa), segment)
			if _, st := r.do(copyCDB(0, len(list)), list...); text(st) != "A/0D02" {
				t.Errorf("%s: %s", name, text(st))
			}
		}
	}
	refused("a unit of another target", naaAbsent)
	hidden := (*r.nexus.luns.Load())[1]
	r.nexus.change(func(luns map[uint16]*itl) { delete(luns, 1) })
	refused("a unit that another nexus alone sees", naaSecond)
	r.nexus.change(func(luns map[uint16]*itl) { luns[1] = hidden })
	r.nexus.change(func(luns map[uint16]*itl) { luns[2] = hidden })
	refused("a name that two units have", naaSecond)
	r.nexus.change(func(luns map[uint16]*itl) { delete(luns, 2) })
	r.inventory.Remove(1)
	r.expect("6/3F0E", "00")
	refused("a unit that was removed", naaSecond)
	holds(t, a, first, 0, nil)
	holds(t, b, other, 0, nil)
	holds(t, elsewhere, foreign, 0, nil)
}

// reserveSecond reserves the second unit for another nexus.
func (r *copyRig) reserveSecond() {
	r.Helper()
	n := r.attach(NexusConfig{InitiatorPort: "iqn.z,i,0x9"})
	if _, st := perform(n.Decode([8]byte{0, 1}, Simple, parse(r, "16")), nil); st.code != Good {
		r.Fatal(text(st))
	}
}

// What a WRITE or a READ through the nexus would be refused a copy is refused.
func TestExtendedCopyAsksAsAWriteDoes(t *testing.T) {
	toSecond := list1(7, 0, byNAA(naaSecond), blockToBlock(0, 0xFFFF, 0, 5, 2, 9))
	fromSecond := list1(7, 0, byNAA(naaSecond), blockToBlock(0, 0, 0xFFFF, 5, 2, 9))
	itlOf := func(r *copyRig) *itl { return (*r.nexus.luns.Load())[1] }
	for _, x := range []struct {
		name string
		list []byte
		set  func(r *copyRig)
		want string
	}{
		{"read-only unit", toSecond, func(r *copyRig) { r.second.config.ReadOnly = true }, "7/2700"},
		{"from a read-only unit", fromSecond, func(r *copyRig) { r.second.config.ReadOnly = true }, "good"},
		{"read-only nexus", toSecond, func(r *copyRig) { r.nexus.config.ReadOnly = true }, "7/2700"},
		{"SWP", toSecond, func(r *copyRig) { r.second.settings.Store(&settings{WriteProtect: true}) }, "7/2700"},
		{"reserved destination", toSecond, (*copyRig).reserveSecond, "conflict"},
		{"reserved source", fromSecond, (*copyRig).reserveSecond, "conflict"},
		{"destination being erased", toSecond, func(r *copyRig) { r.second.chores.current.Store(&chore{Kind: choreErase}) }, "A/0D01"},
		{"lost destination", toSecond, func(r *copyRig) { itlOf(r).lost.Store(true) }, "A/0D01"},
		{"lost source", fromSecond, func(r *copyRig) { itlOf(r).lost.Store(true) }, "A/0D01"},
		{"stopped destination", toSecond, func(r *copyRig) { r.second.power.Store(powerStopped) }, "A/0D01"},
		{"stopped copy manager", toSecond, func(r *copyRig) { r.unit.power.Store(powerStopped) }, "2/0402"},
	} {
		t.Run(x.name, func(t *testing.T) {
			a, b := newDisk(64, 512), newDisk(64, 512)
			r := newCopyRig(t, a, b)
			x.set(r)
			first, other := bytes.Clone(a.now), bytes.Clone(b.now)
			r.expect(x.want, copyCDB(0, len(x.list)), x.list...)
			if x.want == "good" {
				copy(first[9*512:14*512], other[2*512:])
			}
			holds(t, a, first, 0, nil)
			holds(t, b, other, 0, nil)
		})
	}
}

func TestExtendedCopyOfAFailingMedium(t *testing.T) {
	list := list1(7, 0, byNAA(naaSecond), blockToBlock(0, 0xFFFF, 0, 5, 2, 9))
	for _, x := range []struct {
		name string
		set  func(a, b *disk)
		want string
	}{
		{"read", func(a, _ *disk) { a.readErr = errDisk }, "A/0D01"},
		{"write", func(_, b *disk) { b.writeErr = errDisk }, "A/0D01"},
		{"full", func(_, b *disk) { b.writeErr = blockdev.ErrNoSpace }, "7/2707"},
	} {
		for _, kind := range []string{"plain", "copies"} {
			a, b := newDisk(64, 512), newDisk(64, 512)
			before := bytes.Clone(b.now)
			r := newCopyRig(t, devices(a)[kind], devices(b)[kind])
			x.set(a, b)
			if _, st := r.do(copyCDB(0, len(list)), list...); text(st) != x.want && (kind == "plain" || x.name != "read" || text(st) != "A/0D01") {
				t.Errorf("%s, %s: %s", x.name, kind, text(st))
			}
			holds(t, b, before, 0, nil)
		}
	}
}

// What was copied is as stable as the destination's write cache says.
func TestExtendedCopyDurability(t *testing.T) {
	list := list1(7, 0, byNAA(naaSecond), joined(blockToBlock(0, 0xFFFF, 0, 5, 2, 9), blockToBlock(0, 0xFFFF, 0, 1, 0, 0)))
	for _, kind := range []string{"plain", "copies"} {
		a, b := newDisk(64, 512), newDisk(64, 512)
		copy(b.now, pattern(len(b.now)))
		copy(b.stable, b.now)
		want := bytes.Clone(b.now)
		copy(want[9*512:14*512], a.now[2*512:])
		copy(want[:512], a.now)
		r := newCopyRig(t, devices(a)[kind], devices(b)[kind], writeThrough)
		r.expect("good", copyCDB(0, len(list)), list...)
		if b.syncs != 1 {
			t.Errorf("%d syncs for one command", b.syncs)
		}
		b.powerCut()
		holds(t, b, want, 0, nil)
	}
	a, b := newDisk(64, 512), newDisk(64, 512)
	r := newCopyRig(t, a, markedDisk{b})
	r.expect("good", copyCDB(0, len(list)), list...)
	if b.syncs != 0 || b.markNow().BootID != "boot-1" {
		t.Errorf("with a write cache: %d syncs, mark %+v", b.syncs, b.markNow())
	}
	b.set(func() { b.syncErr = errDisk })
	through := newCopyRig(t, newDisk(64, 512), b, writeThrough)
	through.expect("A/0D01", copyCDB(0, len(list)), list...)
}

func TestExtendedCopyStopsBetweenSteps(t *testing.T) {
	for _, up := range []bool{true, false} {
		d := newDisk(1500, 512)
		want := bytes.Clone(d.now)
		r := newRig(t, d)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		d.writing = cancel // while the first step is under way
		list := list1(7, 0, nil, blockToBlock(0, 0xFFFF, 0xFFFF, 1024, 0, 100))
		copy(want[(100+512)*512:], d.now[512*512:1024*512])
		if !up {
			list = list1(7, 0, nil, blockToBlock(0, 0xFFFF, 0xFFFF, 1024, 100, 0))
			want = bytes.Clone(d.now)
			copy(want[:512*512], d.now[100*512:])
		}
		c := r.nexus.Decode([8]byte{}, Simple, parse(t, copyCDB(0, len(list))))
		if _, st := c.Execute(ctx, list); st != StatusTaskAborted {
			t.Error(text(st))
		}
		holds(t, d, want, 0, nil)
	}
}

// A unit that is taken away during a copy is written to no more.
func TestExtendedCopyEndsWithItsUnit(t *testing.T) {
	a, b := newDisk(1500, 512), newDisk(1500, 512)
	copy(b.now, pattern(len(b.now)))
	want := bytes.Clone(b.now)
	r := newCopyRig(t, a, b)
	b.writing = func() { r.inventory.Remove(1) } // while the first step is under way
	copy(want[:512*512], a.now)
	list := list1(7, 0, byNAA(naaSecond), blockToBlock(0, 0xFFFF, 0, 1024, 0, 0))
	r.expect("A/0D02", copyCDB(0, len(list)), list...)
	holds(t, b, want, 0, nil)
}

// TestCopiesAtOnce is for the race detector, and for locks taken in two orders.
func TestCopiesAtOnce(t *testing.T) {
	r := newCopyRig(t, newCopyDisk(newDisk(1500, 512)), newCopyDisk(newDisk(1500, 512)))
	up := list1(7, 3<<3, byNAA(naaSecond), blockToBlock(0, 0xFFFF, 0, 1500, 0, 0))
	up[0] = 0
	down := list1(0, 3<<3, byNAA(naaSecond), blockToBlock(0, 0, 0xFFFF, 1500, 0, 0))
	within := list1(0, 3<<3, nil, blockToBlock(0, 0xFFFF, 0xFFFF, 700, 0, 700))
	populate := populateList(0, 0, 10, 700)
	both := (*r.nexus.luns.Load())[1]
	var wg sync.WaitGroup
	for i, work := range []func(id uint32){
		func(uint32) { r.do(copyCDB(0, len(up)), up...) },
		func(uint32) { r.do(copyCDB(0, len(down)), down...) },
		func(uint32) { r.do(copyCDB(0, len(within)), within...) },
		func(uint32) { r.do("2A 00 0000000A 00 0004 00", pattern(2048)...) },
		func(id uint32) {
			r.do(tokenCDB(0x10, id, len(populate)), populate...)
			if info, st := r.do(results4CDB(0x84, 0x07, id, 4096)); st.code == Good && len(info) == 550 {
				list := writeTokenList(0, 0, info[38:], 0, 700)
				r.doOn(1, tokenCDB(0x11, id, len(list)), list...)
			}
		},
		func(id uint32) { r.do(results4CDB(0x83, 0x1C, id-1, 0)); r.do("84 08 0000000000000000 00001000 00 00") },
		func(uint32) { r.unit.Reset(); both.unit.Reset() },
	} {
		wg.Go(func() {
			for range 30 {
				work(uint32(i))
			}
		})
	}
	wg.Wait()
}

// TestExtendedCopyOnFiles goes through the kernel's copy.
func TestExtendedCopyOnFiles(t *testing.T) {
	var devices [2]blockdev.Device
	for i := range devices {
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, pattern(1500*512*(i+1)), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := raw.Open(path, raw.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		devices[i] = d
	}
	r := newCopyRig(t, devices[0], devices[1])
	list := list1(7, 0, byNAA(naaSecond), joined(blockToBlock(0, 0xFFFF, 0, 1400, 3, 1501), blockToBlock(0, 0, 0, 1000, 0, 500)))
	r.expect("good", copyCDB(0, len(list)), list...)
	want := pattern(3000 * 512)
	copy(want[1501*512:], pattern(1500 * 512)[3*512:1403*512])
	copy(want[500*512:], bytes.Clone(want[:1000*512]))
	got := make([]byte, len(want))
	if _, err := devices[1].ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the medium differs at byte %d (%v)", firstDifference(got, want), err)
	}
}

// Holes are not read; they arrive as zeros in a thin unit, and what is no hole
// arrives wherever the holes end.
func TestExtendedCopyOfHoles(t *testing.T) {
	const size = 6 << 20
	for _, x := range []struct {
		data extent
		read int64 // at most
	}{
		{extent{0, 0}, 0},
		{extent{0, size}, size},
		{extent{2 << 20, 512}, 1 << 20},
		{extent{2<<20 + 512, 512}, 1 << 20},
		{extent{512, 3 << 20}, 4 << 20},
		{extent{size - 512, 512}, 1 << 20},
	} {
		a := &disk{block: 512, now: make([]byte, size)}
		b := &disk{block: 512, now: bytes.Repeat([]byte{7}, size+512), stable: make([]byte, size+512), dirty: map[int]bool{}}
		copy(a.now[x.data.at:x.data.at+x.data.length], pattern(size))
		var read int64
		r := newCopyRig(t, holeyDisk{thinDisk{a}, x.data, &read}, thinDisk{b})
		list := list1(7, 0, byNAA(naaSecond), blockToBlock(0, 0xFFFF, 0, size/512, 0, 1))
		r.expect("good", copyCDB(0, len(list)), list...)
		want := append(bytes.Repeat([]byte{7}, 512), a.now...)
		if !bytes.Equal(b.now, want) {
			t.Errorf("%+v: the medium differs at byte %d", x.data, firstDifference(b.now, want))
		}
		if read > x.read {
			t.Errorf("%+v: %d bytes were read", x.data, read)
		}
		r.golden(resultsCDB(0x00, 7), "00000008 01 0001 00 00600000")
	}
}

func FuzzCopyList(f *testing.F) {
	cscds, segments := joined(byNAA(naaFirst), byNAA(naaSecond)), blockToBlock(2, 0, 1, 5, 2, 9)
	f.Add(list1(7, 0, cscds, segments))
	f.Add(list4(7, 0x10, cscds, segments))
	f.Add(list1(0, 0x18, nil, nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, parse := range []func([]byte) (copyList, Status){parseCopyList1, parseCopyList4} {
			list, st := parse(p)
			if st.code == Good && (len(list.cscds) > maxCSCDs || len(list.segments) > maxSegments) {
				t.Errorf("%d CSCDs, %d segments", len(list.cscds), len(list.segments))
			}
			if st.code != Good && st.sense.key != illegalRequest {
				t.Errorf("refused with %s", text(st))
			}
		}
	})
}

// A unit that has the 24-byte designator of the iSCSI Enterprise Target alone is named by
// what the descriptor holds of it, where that names no other unit too.
func TestExtendedCopyByLongDesignator(t *testing.T) {
	old := func(id string) func(*UnitConfig) {
		return func(c *UnitConfig) { c.NAA, c.T10ID, c.T10Binary, c.Vendor = 0, id, true, "IET" }
	}
	by := func(id string) []byte {
		b := make([]byte, cscdBytes)
		copy(b, []byte{cscdIdentification, 0, 0, 0, codeSetBinary, designatorT10, 0, 24})
		copy(b[8:28], "IET\x00\x00\x00\x00\x00"+id)
		return b
	}
	for id, want := range map[string]string{"0123456789abcdef": "good", "0123456789abXXXX": "good", "0123456789aXcdef": "A/0D02"} {
		b := newDisk(64, 512)
		r := newCopyRig(t, newDisk(64, 512), b, old("0123456789abcdef"))
		list := list1(7, 0, joined(byNAA(naaFirst), by(id)), blockToBlock(0, 0, 1, 1, 0, 8))
		before := bytes.Clone(b.now)
		if _, st := r.do(copyCDB(0, len(list)), list...); text(st) != want {
			t.Errorf("%s: %s", id, text(st))
		}
		if copied := !bytes.Equal(before, b.now); copied != (want == "good") {
			t.Errorf("%s: copied %v", id, copied)
		}
	}
}
