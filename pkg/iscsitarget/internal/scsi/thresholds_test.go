package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// spaceDisk says of its space what it is told, in MiB.
type spaceDisk struct {
	keptDisk
	used, available *atomic.Int64
	// asked counts the calls of Space.
	asked *atomic.Int64
}

func newSpaceDisk() spaceDisk {
	return spaceDisk{keptDisk{newDisk(256, 512)}, new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)}
}

func (d spaceDisk) Space() (blockdev.Space, error) {
	d.asked.Add(1)
	return blockdev.Space{Used: d.used.Load() << 20, Available: d.available.Load() << 20}, d.readErr
}

func (d spaceDisk) Unmap(off, n int64) error { return thinDisk{d.disk}.Unmap(off, n) }
func (d spaceDisk) UnmapGranularity() int64  { return 65536 }

const (
	recoveryHex   = "01 0A 0000 00 00 00 80 00 00 0000"
	thresholdsHex = "5C 02 002C 00" + "0000000000000000000000" + "00 01 0000 00000000" + "00 01 0000 00000000" + "01 02 0000 00000000" + "01 02 0000 00000000"
)

// thresholdPage is the mode page with these thresholds, 0 for a disabled one.
func thresholdPage(counts ...uint32) []byte {
	b := append([]byte{0x5C, 0x02, 0, 44}, make([]byte, 44)...)
	for i, count := range append(counts, make([]uint32, 4-len(counts))...) {
		d := b[16+8*i:]
		d[0], d[1] = byte(i/2), byte(1+i/2)
		if count > 0 {
			d[0] |= 0x80
			binary.BigEndian.PutUint32(d[4:], count)
		}
	}
	return b
}

// selectPage sends a page, saved where sp is 1.
func (r *rig) selectPage(want string, sp int, page []byte) {
	r.Helper()
	list := append(make([]byte, 4), page...)
	r.expect(want, fmt.Sprintf("15 %02X 0000 %02X 00", 0x10|sp, len(list)), list...)
}

func TestThresholdPage(t *testing.T) {
	d := newSpaceDisk()
	r := newRig(t, d)
	saved := func(hex string) string { return fmt.Sprintf("%02X", unhex(t, hex)[0]|0x80) + hex[2:] }
	page, recovery := saved(thresholdsHex), saved(recoveryHex)
	r.golden("1A 08 1C 02 FF 00", "33 00 10 00"+page)
	r.golden("1A 08 1C FF FF 00", "3F 00 10 00"+exceptionsHex+page)
	r.golden("1A 08 1C 00 FF 00", "0F 00 10 00"+exceptionsHex)
	r.golden("1A 08 01 00 FF 00", "0F 00 10 00"+recovery)
	r.golden("1A 08 3F 00 FF 00", "63 00 10 00"+recovery+saved(cachingHex)+saved(controlHex)+powerHex+exceptionsHex)
	r.golden("1A 08 3F FF FF 00", "93 00 10 00"+recovery+saved(cachingHex)+saved(controlHex)+powerHex+exceptionsHex+page)
	r.golden("5A 08 1C 02 000000 00FF 00", "0036 00 10 00 00 0000"+page)
	r.golden("1A 08 5C 02 FF 00", "33 00 10 00 DC 02 002C 00 0000000000000000000000"+
		"80 00 0000 FFFFFFFF 80 00 0000 FFFFFFFF 80 00 0000 FFFFFFFF 80 00 0000 FFFFFFFF")
	r.golden("1A 08 41 00 FF 00", "0F 00 10 00 81 0A 0000 00 00 00 80")
	r.golden("12 01 B2 00 FF 00", "00 B2 0004 0B E4 02 00")
	r.expect("5/2400 byte 3 bit 7", "1A 08 1C 01 FF 00")
	r.expect("5/2400 byte 3 bit 7", "1A 08 01 02 FF 00")
	r.expect("5/2400 byte 3 bit 7", "1A 08 3F 02 FF 00")

	thick := newRig(t, newDisk(64, 512))
	thick.expect("5/2400 byte 3 bit 7", "1A 08 1C 02 FF 00")
	thick.expect("5/2400 byte 2 bit 5", "1A 08 01 00 FF 00")
	thick.selectPage("5/2600 param 4 bit 5", 0, thresholdPage())
}

func TestThresholdSelect(t *testing.T) {
	d := newSpaceDisk()
	r := newRig(t, d)
	want := fmt.Sprintf("33 00 10 00 %X", thresholdPage(5, 0, 7, 9))
	r.selectPage("good", 1, thresholdPage(5, 0, 7, 9))
	r.golden("1A 08 DC 02 FF 00", "33 00 10 00 DC"+want[14:])
	again := newRig(t, d) // after a restart
	again.golden("1A 08 1C 02 FF 00", "33 00 10 00 DC"+want[14:])
	again.golden("1A 08 9C 02 FF 00", "33 00 10 00 DC"+thresholdsHex[2:])
	good := thresholdPage(1, 2, 3, 4)
	again.selectPage("good", 0, good)
	again.golden("1A 08 1C 02 FF 00", fmt.Sprintf("33 00 10 00 DC%X", good[1:]))
	again.selectPage("good", 0, unhex(t, "01 0A 0000 00 00 00 00 00 00 0000")) // LBPERE off
	again.golden("1A 08 01 00 FF 00", "0F 00 10 00 81 0A")

	for n := 1; n < len(good); n++ {
		list := append(make([]byte, 4), good[:n]...)
		again.expect("5/1A00", fmt.Sprintf("15 10 0000 %02X 00", len(list)), list...)
	}
	// A bit is changeable, or an error that points at it; a head names the page.
	for at := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[at] ^= 1 << bit
			want := fmt.Sprintf("5/2600 param %d bit 7", 4+at)
			switch in := (at - 16) % 8; {
			case at == 0 && bit == 7, at >= 16 && in >= 4, at >= 16 && in == 0 && bit == 7:
				want = "good"
			case at == 0 && bit == 6: // the page without a subpage: its length is byte 1
				want = "5/2600 param 5 bit 7"
			case at < 2:
				want = "5/2600 param 4 bit 5"
			case at < 4:
				want = "5/2600 param 6 bit 7"
			}
			again.selectPage(want, 0, b)
		}
	}
}

// watch is a rig with another nexus, in a bubble of fake time.
func watch(t *testing.T, f func(d spaceDisk, r *rig, told func(want string))) {
	synctest.Test(t, func(t *testing.T) {
		d := newSpaceDisk()
		d.available.Store(100)
		r := newRig(t, d)
		other := r.attach(NexusConfig{InitiatorPort: "iqn.j,i,0x2"})
		f(d, r, func(want string) {
			t.Helper()
			<-time.After(thresholdPeriod + time.Millisecond)
			synctest.Wait()
			for _, n := range []*Nexus{r.nexus, other} {
				if _, st := run(t, n, "00", nil); text(st) != want {
					t.Errorf("told %s, want %s", text(st), want)
				}
			}
		})
		if err := r.unit.Close(); err != nil {
			t.Error(err)
		}
	})
}

const writeBlock = "2A 00 00000000 00 0001 00"

// TestThresholdCrossing: one report a crossing, to every nexus, with the offset of
// the descriptor; the next one after the threshold was left by more than half a
// set.
func TestThresholdCrossing(t *testing.T) {
	for _, x := range []struct {
		name  string
		page  []byte
		steps []spaceStep
	}{
		{"available", thresholdPage(50), []spaceStep{
			{0, 100, "good"}, {0, 51, "good"}, {0, 50, "6/3807 at 16"}, {0, 50, "good"}, {0, 49, "good"}, {0, 0, "good"},
			{0, 50, "good"}, {0, 51, "good"}, {0, 50, "6/3807 at 16"}, {0, 100, "good"}, {0, 10, "6/3807 at 16"},
		}},
		{"used", thresholdPage(0, 0, 0, 20), []spaceStep{
			{0, 0, "good"}, {19, 0, "good"}, {20, 0, "6/3807 at 40"}, {25, 0, "good"}, {20, 0, "good"}, {19, 0, "good"}, {21, 0, "6/3807 at 40"},
		}},
		{"two of a kind", thresholdPage(50, 10), []spaceStep{{0, 40, "6/3807 at 16"}, {0, 10, "6/3807 at 24"}, {0, 9, "good"}}},
		{"reached from the start", thresholdPage(200), []spaceStep{{0, 100, "6/3807 at 16"}, {0, 100, "good"}}},
		{"disabled", thresholdPage(), []spaceStep{{0, 0, "good"}, {1000, 0, "good"}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			watch(t, func(d spaceDisk, r *rig, told func(string)) {
				r.selectPage("good", 0, x.page)
				forgetModeChange(r)
				for _, step := range x.steps {
					d.used.Store(step.used)
					d.available.Store(step.available)
					r.expect("good", writeBlock, pattern(512)...)
					told(step.want)
				}
			})
		})
	}
}

// spaceStep is what is used and available, in MiB, and what is told after a write.
type spaceStep struct {
	used, available int64
	want            string
}

// forgetModeChange takes away what MODE SELECT has told the other nexus.
func forgetModeChange(r *rig) {
	for l := range r.unit.itls {
		l.attentions.clear(attentionModeParameters)
	}
}

// TestThresholdWatchIsCheap: many writes cost one look, none without a threshold,
// and none while the reports are off.
func TestThresholdWatchIsCheap(t *testing.T) {
	watch(t, func(d spaceDisk, r *rig, told func(string)) {
		writes := func(want int64) {
			t.Helper()
			before := d.asked.Load()
			for range 1000 {
				r.expect("good", writeBlock, pattern(512)...)
			}
			<-time.After(10 * thresholdPeriod)
			synctest.Wait()
			if n := d.asked.Load() - before; n != want {
				t.Errorf("%d looks for 1000 writes, want %d", n, want)
			}
		}
		writes(0)
		r.selectPage("good", 0, thresholdPage(50))
		writes(1)
		r.expect("good", writeBlock, pattern(512)...)
		<-time.After(thresholdPeriod / 2)
		d.available.Store(10) // seen by the look that is due already
		forgetModeChange(r)
		told("6/3807 at 16")
		r.selectPage("good", 0, unhex(t, "01 0A 0000 00 00 00 00 00 00 0000"))
		d.available.Store(100)
		writes(0)
		d.available.Store(10)
		writes(0)
		r.selectPage("good", 0, unhex(t, recoveryHex))
		writes(1)
	})
}

// TestThresholdWrites: everything that may take space, or give it back, is
// followed by a look.
func TestThresholdWrites(t *testing.T) {
	for name, do := range map[string]func(r *rig){
		"WRITE":      func(r *rig) { r.expect("good", writeBlock, pattern(512)...) },
		"WRITE FUA":  func(r *rig) { r.expect("good", "2A 08 00000000 00 0001 00", pattern(512)...) },
		"WRITE SAME": func(r *rig) { r.expect("good", "41 00 00000000 00 0001 00", pattern(512)...) },
		"UNMAP":      func(r *rig) { r.expect("good", "42 00 00000000 00 0018 00", unmapParams(0, 1)...) },
		"ORWRITE":    func(r *rig) { r.expect("good", "8B 00 0000000000000000 00000001 00 00", pattern(512)...) },
		"reset":      func(r *rig) { r.unit.Reset(); r.expect("6/2903", "00") },
	} {
		t.Run(name, func(t *testing.T) {
			watch(t, func(d spaceDisk, r *rig, _ func(string)) {
				r.selectPage("good", 1, thresholdPage(50))
				<-time.After(10 * thresholdPeriod)
				synctest.Wait()
				before := d.asked.Load()
				do(r)
				<-time.After(10 * thresholdPeriod)
				synctest.Wait()
				if d.asked.Load() != before+1 {
					t.Errorf("%d looks", d.asked.Load()-before)
				}
			})
		})
	}
}

// TestThresholdAgain: a logical unit reset, a restart and a new count have what is
// reached reported once more; a Space that fails reports nothing.
func TestThresholdAgain(t *testing.T) {
	watch(t, func(d spaceDisk, r *rig, told func(string)) {
		d.available.Store(40)
		r.selectPage("good", 1, thresholdPage(50))
		forgetModeChange(r)
		told("6/3807 at 16")
		r.unit.Reset()
		for l := range r.unit.itls {
			l.attentions.clear(attentionDeviceReset)
		}
		told("6/3807 at 16")
		d.set(func() { d.readErr = errDisk })
		r.selectPage("good", 0, thresholdPage(60))
		forgetModeChange(r)
		told("good")
		d.set(func() { d.readErr = nil })
		r.expect("good", writeBlock, pattern(512)...)
		told("6/3807 at 16")
		again := newRig(r.TB, d)
		<-time.After(2 * thresholdPeriod)
		synctest.Wait()
		again.expect("6/3807 at 16", "00")
		data, st := again.do("03 00 00 00 FC 00") // nothing is left of it
		if st.code != Good || data[2] != 0 {
			t.Errorf("REQUEST SENSE: %x", data)
		}
		if err := again.unit.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestThresholdExponent: a set is so large that 32 bits count the capacity.
func TestThresholdExponent(t *testing.T) {
	r := newRig(t, newSpaceDisk())
	for blocks, want := range map[int64]int{256: 11, 1<<43 - 1: 11, 1 << 43: 12, 1 << 50: 19} {
		r.unit.blocks.Store(blocks)
		if got := r.unit.thresholdExponent(); got != want || uint64(blocks)>>got >= 1<<32 {
			t.Errorf("%d blocks: exponent %d, want %d", blocks, got, want)
		}
	}
	r.unit.blocks.Store(256)
}
