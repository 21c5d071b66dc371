package scsi

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// atomicWrites is the AtomicWriter of a disk.
type atomicWrites struct {
	to *disk
	// halfway, where set, is called between the two halves of a write.
	halfway func()
}

func (a atomicWrites) AtomicLimit() int { return 200 << 10 }

func (a atomicWrites) WriteAtomic(p []byte, off int64) error {
	half := len(p) / 2
	for _, part := range []struct {
		p   []byte
		off int64
	}{{p[:half], off}, {p[half:], off + int64(half)}} {
		if err := (syncDisk{a.to}).WriteAtSync(part.p, part.off); err != nil {
			return err
		}
		if a.halfway != nil && part.off == off {
			a.halfway()
		}
	}
	return nil
}

func newAtomicDisk(blocks, block int) atomicDisk {
	d := newDisk(blocks, block)
	return atomicDisk{d, atomicWrites{to: d}}
}

func TestWriteAtomic(t *testing.T) {
	for _, block := range []int{512, 1024, 2048, 4096} {
		for cdb, at := range map[string][2]int{
			"9C 00 0000000000000008 0000 0008 00 00": {8, 8},
			"9C 18 0000000000000010 0000 0010 1F 00": {16, 16}, // DPO, FUA, group
			"9C 00 0000000000000000 0008 0010 00 00": {0, 16},  // a boundary
			"9C 00 0000000000000038 0000 0008 00 00": {56, 8},  // the end
			"9C 00 0000000000000009 0000 0000 00 00": {9, 0},
			"9C 00 0000000000000040 0000 0000 00 00": {64, 0},
		} {
			d := newAtomicDisk(64, block)
			before, want := bytes.Clone(d.now), pattern(at[1]*block)
			r := newRig(t, d)
			r.expect("good", cdb, want...)
			holds(t, d.disk, before, at[0], want)
			if !bytes.Equal(d.now, d.stable) {
				t.Error("GOOD before the data was stable")
			}
		}
	}
}

func TestWriteAtomicRefusals(t *testing.T) {
	d := newAtomicDisk(1024, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, d)
	for cdb, want := range map[string]string{
		"9C 20 0000000000000000 0000 0008 00 00": "5/2400 byte 1 bit 7",
		"9C 80 0000000000000000 0000 0008 00 00": "5/2400 byte 1 bit 7",
		"9C 00 0000000000000001 0000 0008 00 00": "5/2400 byte 2 bit 7",  // alignment
		"9C 00 0000000000000000 0000 0001 00 00": "5/2400 byte 12 bit 7", // granularity
		"9C 00 0000000000000000 0000 0009 00 00": "5/2400 byte 12 bit 7",
		"9C 00 0000000000000000 0000 0198 00 00": "5/2400 byte 12 bit 7", // the limit is 190h
		"9C 00 0000000000000000 0008 0198 00 00": "5/2400 byte 12 bit 7",
		"9C 00 0000000000000000 0001 0008 00 00": "5/2400 byte 10 bit 7",
		"9C 00 0000000000000000 0198 0008 00 00": "5/2400 byte 10 bit 7",
		"9C 00 00000000000003F8 0000 0010 00 00": "5/2100",
		"9C 00 0000000000000401 0000 0000 00 00": "5/2100",
		"9C 00 8000000000000000 0000 0008 00 00": "5/2100",
		"9C 00 FFFFFFFFFFFFFFF8 0000 0008 00 00": "5/2100",
	} {
		r.expect(want, cdb, make([]byte, 0x198*512)...)
	}
	for n := 0; n < 8*512; n += 511 {
		r.expect("5/0E03", "9C 00 0000000000000000 0000 0008 00 00", make([]byte, n)...)
	}
	for err, want := range map[error]string{
		errDisk: "3/0C00 at 8", fmt.Errorf("pool: %w", blockdev.ErrNoSpace): "7/2707", blockdev.ErrLostWrites: "4/4400",
	} {
		d.writeErr = err
		r.expect(want, "9C 00 0000000000000008 0000 0008 00 00", pattern(8*512)...)
	}
	d.writeErr = nil
	newRig(t, d, readOnly).expect("7/2700", "9C 00 0000000000000008 0000 0008 00 00", pattern(8*512)...)
	newRig(t, d.disk).expect("5/2000", "9C 00 0000000000000008 0000 0008 00 00", pattern(8*512)...)
	holds(t, d.disk, before, 0, nil)
}

// TestWriteAtomicLimits: VPD page B0h and REPORT SUPPORTED OPERATION CODES.
func TestWriteAtomicLimits(t *testing.T) {
	r := newRig(t, newAtomicDisk(64, 512))
	r.golden("12 01 B0 00 40 00", `00 B0 003C 00 80 0008 00080000 00000800 00000000 00000000 00000000 00000000 00000000
		0000000000200000 00000190 00000008 00000008 00000190 00000190`)
	r.golden("A3 0C 01 9C 0000 00000100 00 00", "00 03 0010 9C F8 FFFFFFFFFFFFFFFF FFFF FFFF 00 04")
	small := newRig(t, newAtomicDisk(64, 512), func(c *UnitConfig) { c.PhysicalBlockSize = 512 })
	if data, _ := small.do("12 01 B0 00 40 00"); !bytes.Equal(data[48:56], unhex(t, "00000008 00000008")) {
		t.Errorf("physical blocks of 512 bytes: alignment and granularity %x", data[48:56])
	}
	r = newRig(t, newAtomicDisk(64, 4096))
	r.golden("12 01 B0 00 40 00", `00 B0 003C 00 10 0001 00010000 00000100 00000000 00000000 00000000 00000000 00000000
		0000000000040000 00000032 00000001 00000001 00000032 00000032`)
	newRig(t, newDisk(64, 512)).golden("A3 0C 01 9C 0000 00000100 00 00", "00 01 0000")
}

// readers are commands that must not see half of a write.
var readers = map[string]func(r *rig) []byte{
	"READ": func(r *rig) []byte {
		c := r.nexus.Decode([8]byte{}, Simple, parse(r, "28 00 00000000 00 0010 00"))
		p := make([]byte, c.Length)
		if st := c.ReadAt(p, 0); st.code != Good {
			r.Error(text(st))
		}
		return p
	},
	"READ in place": func(r *rig) []byte {
		c := r.nexus.Decode([8]byte{}, Simple, parse(r, "28 00 00000000 00 0010 00"))
		p := make([]byte, c.Length)
		if _, ready := c.ReadAtNowait(p, 0); ready != Ready {
			if st := c.ReadAt(p, 0); st.code != Good {
				r.Error(text(st))
			}
		}
		return p
	},
	"READ in parts": func(r *rig) []byte {
		for {
			p, st := run(r, r.nexus, "28 00 00000000 00 0010 00", nil)
			if st.code == Good {
				return p
			}
			if text(st) != "B/0023" {
				r.Error(text(st))
			}
		}
	},
}

// TestReadersSeeAllOrNothing: while writers that exchange all of a range, half by
// half, are at work, and plain ones beside them.
func TestReadersSeeAllOrNothing(t *testing.T) {
	for name, read := range readers {
		t.Run(name, func(t *testing.T) {
			d := newAtomicDisk(256, 512)
			copy(d.now, bytes.Repeat([]byte{1}, 0x2000))
			var cold error
			dev := struct {
				nowaitDisk
				atomicWrites
			}{nowaitDisk{d.disk, &cold}, d.atomicWrites}
			r := newRig(t, dev)
			var writers, reads sync.WaitGroup
			stop := make(chan struct{})
			for i := range 3 {
				writers.Go(func() {
					for n := range 100 {
						_, st := run(t, r.nexus, "9C 00 0000000000000000 0000 0010 00 00", bytes.Repeat([]byte{byte(i*50 + n%50)}, 0x2000))
						if st.code != Good {
							t.Error(text(st))
						}
						_, _ = run(t, r.nexus, "9C 00 0000000000000020 0000 0010 00 00", make([]byte, 0x2000))
					}
				})
			}
			for range 2 {
				reads.Go(func() {
					for {
						if p := read(r); !bytes.Equal(p, bytes.Repeat(p[:1], len(p))) {
							t.Error("a mix")
							return
						}
						select {
						case <-stop:
							return
						default:
						}
					}
				})
			}
			writers.Wait()
			close(stop)
			reads.Wait()
		})
	}
}

// TestReadBesideAtomicWrite: a read of other blocks does not wait for an atomic
// write, one of the same blocks does, and one in place leaves that to a worker.
func TestReadBesideAtomicWrite(t *testing.T) {
	d := newAtomicDisk(8192, 512)
	reached, goOn := make(chan struct{}), make(chan struct{})
	d.halfway = func() { close(reached); <-goOn }
	var cold error
	r := newRig(t, struct {
		nowaitDisk
		atomicWrites
	}{nowaitDisk{d.disk, &cold}, d.atomicWrites})
	before, now := bytes.Clone(d.now[:0x2000]), pattern(0x2000)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = run(t, r.nexus, "9C 00 0000000000000000 0000 0010 00 00", now) })
	<-reached
	far := r.nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00001000 00 0010 00"))
	if st := far.ReadAt(make([]byte, 0x2000), 0); st.code != Good {
		t.Error(text(st))
	}
	near := r.nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00000000 00 0010 00"))
	p := make([]byte, 0x2000)
	if _, ready := near.ReadAtNowait(p, 0); ready != Blocks {
		t.Error("a read in place did not wait for the write, or waited for it")
	}
	wg.Go(func() {
		if st := near.ReadAt(p, 0); st.code != Good {
			t.Error(text(st))
		}
	})
	close(goOn)
	wg.Wait()
	if !bytes.Equal(p, now) && !bytes.Equal(p, before) {
		t.Error("a mix")
	}
}

// TestReadInParts: an atomic write between two parts of a read that is in both of
// them ends the read; one in either of them, or before the first, does not. One
// that nobody remembers may have been in both.
func TestReadInParts(t *testing.T) {
	for _, x := range []struct {
		before, between, count int
		want                   string
	}{
		{-1, -1, 0, "good"}, {8, -1, 0, "good"}, {-1, 8, 1, "B/0023"}, {-1, 0, 1, "good"}, {-1, 16, 1, "good"}, {8, 0, 1, "good"},
		{-1, 240, recentAtomics, "good"}, {-1, 240, recentAtomics + 1, "B/0023"},
	} {
		r := newRig(t, newAtomicDisk(256, 512))
		write := func(lba, count int) {
			for range count {
				if lba >= 0 {
					r.expect("good", fmt.Sprintf("9C 00 %016X 0000 0008 00 00", lba), pattern(0x1000)...)
				}
			}
		}
		c := r.nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00000000 00 0018 00"))
		write(x.before, 1)
		p := make([]byte, 0x1800)
		if st := c.ReadAt(p, 0); st.code != Good {
			t.Error(text(st))
		}
		write(x.between, x.count)
		if st := c.ReadAt(p, 0x1800); text(st) != x.want {
			t.Errorf("%+v: %s", x, text(st))
		}
	}
}

// TestAtomicAgainstCompare: COMPARE AND WRITE and WRITE ATOMIC of the same blocks
// come one after the other.
func TestAtomicAgainstCompare(t *testing.T) {
	d := newAtomicDisk(64, 512)
	clear(d.now)
	r := newRig(t, d)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 30 {
				for !increment(t, r) {
				}
			}
		})
	}
	wg.Go(func() {
		for range 100 {
			_, _ = run(t, r.nexus, "9C 00 0000000000000008 0000 0008 00 00", pattern(0x1000))
		}
	})
	wg.Wait()
	if string(d.now[:8]) != "00000060" {
		t.Errorf("counted to %q", d.now[:8])
	}
	if !bytes.Equal(d.now[8*512:16*512], pattern(0x1000)) {
		t.Error("the atomic write is not there")
	}
}

// TestSteady: what reads in a way of its own does so again where an atomic write
// of its blocks came in between, and waits for one that is under way.
func TestSteady(t *testing.T) {
	r := newRig(t, newAtomicDisk(256, 512))
	calls := 0
	st := r.unit.steady(0, 4096, func() Status {
		if calls++; calls < 3 {
			r.expect("good", "9C 00 0000000000000000 0000 0008 00 00", pattern(0x1000)...)
		}
		r.expect("good", "9C 00 0000000000000010 0000 0008 00 00", pattern(0x1000)...)
		return StatusBusy
	})
	if calls != 3 || st.code != Busy {
		t.Errorf("%d calls, %s", calls, text(st))
	}
	d := newAtomicDisk(256, 512)
	reached, goOn := make(chan struct{}), make(chan struct{})
	d.halfway = func() { close(reached); <-goOn }
	r = newRig(t, d)
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = run(t, r.nexus, "9C 00 0000000000000000 0000 0008 00 00", pattern(0x1000)) })
	<-reached
	wg.Go(func() {
		r.unit.steady(0, 4096, func() Status {
			if p := make([]byte, 4096); r.unit.atomics.ended.Load() == 0 {
				t.Error("did not wait")
			} else if _, err := d.ReadAt(p, 0); err != nil || !bytes.Equal(p, pattern(0x1000)) {
				t.Error("a mix")
			}
			return StatusGood
		})
	})
	close(goOn)
	wg.Wait()
}
