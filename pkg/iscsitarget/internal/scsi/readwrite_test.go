package scsi

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func TestReads(t *testing.T) {
	for _, block := range []int{512, 1024, 2048, 4096} {
		d := newDisk(300, block)
		r := newRig(t, d)
		for cdb, at := range map[string][2]int{
			"08 00 00 05 02 00":                              {5, 2},
			"08 E0 00 05 02 00":                              {5, 2}, // the top bits were a LUN once
			"08 00 00 05 00 00":                              {5, 256},
			"28 18 00000005 1F 0002 00":                      {5, 2},
			"A8 00 00000005 00000003 00 00":                  {5, 3},
			"88 08 0000000000000009 00000001 00 00":          {9, 1},
			"28 00 00000000 00 0000 00":                      {0, 0},
			"28 00 0000012C 00 0000 00":                      {300, 0},
			"88 00 000000000000012B 00000001 00 00 FFFFFFFF": {299, 1},
		} {
			data, st := r.do(cdb)
			if want := d.now[at[0]*block:][:at[1]*block]; st.code != Good || !bytes.Equal(data, want) {
				t.Errorf("%d: %s: %s, %d bytes, right: %v", block, cdb, text(st), len(data), bytes.Equal(data, want))
			}
		}
	}
}

func TestWrites(t *testing.T) {
	for cdb, at := range map[string][2]int{
		"0A 00 00 05 02 00":                     {5, 2},
		"0A 00 00 05 00 00":                     {5, 256},
		"2A 18 00000005 1F 0002 00":             {5, 2},
		"AA 00 00000005 00000003 00 00":         {5, 3},
		"8A 08 0000000000000009 00000001 00 00": {9, 1},
		"2E 00 00000007 00 0003 00":             {7, 3},
		"2E 02 00000007 00 0003 00":             {7, 3},
		"AE 02 00000007 00000003 00 00":         {7, 3},
		"8E 02 0000000000000007 00000003 00 00": {7, 3},
		"2A 00 00000000 00 0000 00":             {0, 0},
	} {
		for _, edit := range []func(*UnitConfig){func(*UnitConfig) {}, writeThrough} {
			d := newDisk(300, 512)
			before := bytes.Clone(d.now)
			r := newRig(t, d, edit)
			want := pattern(at[1] * 512)
			r.expect("good", cdb, want...)
			holds(t, d, before, at[0], want)
		}
	}
}

func TestPartsComeInAnyOrder(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d, writeThrough)
	before, want := bytes.Clone(d.now), pattern(16*512)
	c := r.nexus.Decode([8]byte{}, Simple, parse(t, "2A 00 00000004 00 0010 00"))
	var wg sync.WaitGroup
	for i := 15; i >= 0; i-- {
		wg.Go(func() {
			if st := c.WriteAt(want[i*512:(i+1)*512], int64(i*512)); st.code != Good {
				t.Error(text(st))
			}
		})
	}
	wg.Wait()
	if st := c.Finish(); st.code != Good || d.syncs != 1 {
		t.Errorf("%s after %d syncs", text(st), d.syncs)
	}
	holds(t, d, before, 4, want)
	if !bytes.Equal(d.now, d.stable) {
		t.Error("GOOD before the data was stable")
	}
}

func TestTransferRefusals(t *testing.T) {
	r := newRig(t, newDisk(70000, 512))
	r.unit.blocks.Store(1 << 40)
	for _, x := range []struct{ cdb, want string }{
		{"28 20 00000000 00 0001 00", "5/2400 byte 1 bit 7"},
		{"2A 40 00000000 00 0001 00", "5/2400 byte 1 bit 7"},
		{"2E 80 00000000 00 0001 00", "5/2400 byte 1 bit 7"},
		{"2E 04 00000000 00 0001 00", "5/2400 byte 1 bit 2"},
		{"2E 06 00000000 00 0001 00", "5/2400 byte 1 bit 2"},
		{"2F 20 00000000 00 0001 00", "5/2400 byte 1 bit 7"},
		{"2F 04 00000000 00 0001 00", "5/2400 byte 1 bit 2"},
		{"A8 00 00000000 00080001 00 00", "5/2400 byte 6 bit 7"},
		{"8A 00 0000000000000000 FFFFFFFF 00 00", "5/2400 byte 10 bit 7"},
		{"88 00 FFFFFFFFFFFFFFFF 00000001 00 00", "5/2100"},
		{"88 00 FFFFFFFFFFFFFFFF FFFFFFFF 00 00", "5/2100"},
		{"8A 00 000000FFFFFFFFFF 00000002 00 00", "5/2100"},
		{"88 00 0000010000000001 00000000 00 00", "5/2100"},
		{"8F 02 8000000000000000 00000001 00 00", "5/2100"},
	} {
		r.expect(x.want, x.cdb)
	}
	if c := r.nexus.Decode([8]byte{}, Simple, parse(t, "A8 00 00000000 00080000 00 00")); c.Kind != Read || c.Length != 256<<20 {
		t.Errorf("MAXIMUM TRANSFER LENGTH itself: kind %v, %d bytes", c.Kind, c.Length)
	}
}

func TestWritesRefused(t *testing.T) {
	writes := []string{
		"0A 00 00 05 02 00", "2A 00 00000005 00 0002 00", "AA 00 00000005 00000003 00 00",
		"8A 00 0000000000000009 00000001 00 00", "2E 00 00000007 00 0003 00", "42 00 00000000 00 0018 00",
		"41 00 00000000 00 0001 00", "93 00 0000000000000000 00000001 00 00",
	}
	d := newDisk(64, 512)
	before := bytes.Clone(d.now)
	unit := newRig(t, thinDisk{d}, readOnly)
	nexus := newRig(t, thinDisk{d})
	nexus.nexus = nexus.attach(NexusConfig{ReadOnly: true})
	for _, cdb := range writes {
		unit.expect("7/2700", cdb, pattern(4096)...)
		nexus.expect("7/2700", cdb, pattern(4096)...)
	}
	nexus.expect("good", "35 00 00000000 00 0000 00")
	nexus.expect("good", "28 00 00000000 00 0001 00")
	holds(t, d, before, 0, nil)
}

func TestBackendErrors(t *testing.T) {
	for _, x := range []struct {
		err         error
		read, write string
	}{
		{errDisk, "3/1100 at 6", "3/0C00 at 5"},
		{fmt.Errorf("pool: %w", blockdev.ErrNoSpace), "3/1100 at 6", "7/2707"},
		{blockdev.ErrOutOfRange, "5/2100", "5/2100"},
		{blockdev.ErrLostWrites, "3/1100 at 6", "4/4400"},
	} {
		d := newDisk(64, 512)
		d.readErr, d.writeErr = x.err, x.err
		for _, dev := range []blockdev.Device{thinDisk{d}, struct {
			thinDisk
			zeroDisk2
		}{thinDisk{d}, zeroDisk2{d}}} {
			r := newRig(t, dev)
			r.expect(x.read, "28 00 00000005 00 0004 00")
			r.expect(x.read, "2F 00 00000005 00 0004 00")
			r.expect(x.write, "2A 00 00000005 00 0004 00", pattern(2048)...)
			r.expect(x.write, "41 00 00000005 00 0001 00", make([]byte, 512)...)
			r.expect(x.write, "93 08 0000000000000005 00000001 00 00", make([]byte, 512)...)
			r.expect(x.write, "93 00 0000000000000005 00000001 00 00", pattern(512)...)
			r.expect(x.write, "42 00 00000000 00 0018 00", unhex(t, "0016 0010 00000000 0000000000000005 00000001 00000000")...)
		}
		s := newRig(t, syncDisk{d})
		s.expect(x.write, "2A 08 00000005 00 0001 00", pattern(512)...)
	}
}

// zeroDisk2 adds WriteZeroes to a disk that is embedded already.
type zeroDisk2 struct{ d *disk }

func (z zeroDisk2) WriteZeroes(off, n int64) error { return zeroDisk{z.d}.WriteZeroes(off, n) }

func TestStableBeforeGood(t *testing.T) {
	for name, x := range map[string]struct {
		edit func(*UnitConfig)
		cdb  string
		sync bool
	}{
		"write-back":            {func(*UnitConfig) {}, "2A 00 00000004 00 0002 00", false},
		"FUA":                   {func(*UnitConfig) {}, "2A 08 00000004 00 0002 00", true},
		"FUA in 16":             {func(*UnitConfig) {}, "8A 08 0000000000000004 00000002 00 00", true},
		"WRITE AND VERIFY":      {func(*UnitConfig) {}, "2E 00 00000004 00 0002 00", true},
		"write-through":         {writeThrough, "2A 00 00000004 00 0002 00", true},
		"write-through in 6":    {writeThrough, "0A 00 00 04 02 00", true},
		"write-through pattern": {writeThrough, "41 00 00000004 00 0002 00", true},
		"write-through zeros":   {writeThrough, "93 01 0000000000000004 00000002 00 00", true},
		"write-through unmap":   {writeThrough, "93 09 0000000000000004 00000002 00 00", true},
	} {
		d := newDisk(64, 512)
		newRig(t, thinDisk{d}, x.edit).expect("good", x.cdb, pattern(1024)...)
		if got := bytes.Equal(d.now, d.stable); got != x.sync || x.sync && d.syncs != 1 {
			t.Errorf("%s: stable %v after %d syncs", name, got, d.syncs)
		}
	}
	d := newDisk(64, 512)
	r := newRig(t, syncDisk{d})
	r.expect("good", "2A 08 00000004 00 0002 00", pattern(1024)...)
	if !bytes.Equal(d.now, d.stable) || d.syncs != 0 {
		t.Errorf("a device that can write one range stably synced %d times", d.syncs)
	}
}

func TestReadFUA(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d)
	r.expect("good", "28 08 00000004 00 0001 00")
	if d.syncs != 0 {
		t.Error("a clean unit was synced for a read")
	}
	r.expect("good", "2A 00 00000004 00 0001 00", pattern(512)...)
	r.expect("good", "28 00 00000004 00 0001 00")
	if d.syncs != 0 {
		t.Error("a read without FUA synced")
	}
	r.expect("good", "28 08 00000004 00 0001 00")
	if d.syncs != 1 || !bytes.Equal(d.now, d.stable) {
		t.Errorf("FUA read gave what is not stable, after %d syncs", d.syncs)
	}
	r.expect("good", "2A 00 00000004 00 0001 00", pattern(512)...)
	d.syncErr = errDisk
	r.expect("4/4400", "28 08 00000004 00 0001 00")
}

func TestReadNowait(t *testing.T) {
	var cold error
	d := newDisk(64, 512)
	r := newRig(t, nowaitDisk{d, &cold})
	read := func(cdb string) (Status, Readiness, []byte) {
		c := r.nexus.Decode([8]byte{}, Simple, parse(t, cdb))
		p := make([]byte, 512)
		st, ready := c.ReadAtNowait(p, 512)
		return st, ready, p
	}
	if st, ready, p := read("28 00 00000004 00 0002 00"); st.code != Good || ready != Ready || !bytes.Equal(p, d.now[5*512:6*512]) {
		t.Error("a warm read was not done at once")
	}
	for err, want := range map[error]Readiness{blockdev.ErrWouldBlock: Blocks, blockdev.ErrFetching: Fetching} {
		cold = err
		if _, ready, _ := read("28 00 00000004 00 0002 00"); ready != want {
			t.Errorf("%v: %d", err, ready)
		}
	}
	cold = nil
	r.expect("good", "2A 00 00000004 00 0001 00", pattern(512)...)
	if _, ready, _ := read("28 08 00000004 00 0002 00"); ready != Blocks {
		t.Error("a FUA read that must sync was done at once")
	}
	d.readErr = errDisk
	c := r.nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00000004 00 0002 00"))
	if st, ready := c.ReadAtNowait(make([]byte, 1024), 0); text(st) != "3/1100 at 5" || ready != Ready {
		t.Error(text(st), ready)
	}
	plain := newRig(t, newDisk(64, 512))
	c = plain.nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00000004 00 0002 00"))
	if _, ready := c.ReadAtNowait(make([]byte, 512), 0); ready != Blocks {
		t.Error("a device that cannot tell was read at once")
	}
}

// A read in the background that met an atomic write of its blocks is done once more, and
// none begins while one is under way.
func TestReadInTheBackground(t *testing.T) {
	d := &asideDisk{disk: newDisk(64, 512)}
	r := newRig(t, d)
	u := r.unit
	begin := func(cdb string) (*Command, bool) {
		c := r.nexus.Decode([8]byte{}, Simple, parse(t, cdb))
		return &c, c.BeginRead(make([]byte, c.Length), nil) != nil
	}
	c, ok := begin("28 00 00000004 00 0002 00")
	if !ok || d.taken != 1 || !c.EndRead(1024) {
		t.Error("a read that met nothing is not what was found")
	}
	u.atomics.begin(extent{0, 4 * 512})
	if !c.EndRead(1024) {
		t.Error("an atomic write of other blocks counts")
	}
	if _, ok := begin("28 00 00000014 00 0002 00"); ok {
		t.Error("begun while an atomic write is under way")
	}
	u.atomics.end()
	c, _ = begin("28 00 00000004 00 0002 00")
	u.atomics.begin(extent{5 * 512, 512})
	u.atomics.end()
	if c.EndRead(1024) {
		t.Error("a read that met an atomic write of its blocks is what was found")
	}
	r.expect("good", "2A 00 00000004 00 0001 00", pattern(512)...)
	if _, ok := begin("28 08 00000004 00 0002 00"); ok {
		t.Error("begun with FUA, while what was written is not stable")
	}
	if _, ok := begin("28 00 00000004 00 0002 00"); !ok || d.taken != 3 {
		t.Errorf("%d reads were taken", d.taken)
	}
	if c := newRig(t, newDisk(64, 512)).nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00000004 00 0002 00")); c.BeginRead(nil, nil) != nil {
		t.Error("begun on a device that cannot")
	}
}

func TestPartsOutsideTheCommand(t *testing.T) {
	d := newDisk(64, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, d)
	read := r.nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00000004 00 0002 00"))
	write := r.nexus.Decode([8]byte{}, Simple, parse(t, "2A 00 00000004 00 0002 00"))
	ready := r.nexus.Decode([8]byte{}, Simple, parse(t, "00"))
	for _, x := range [][2]int64{{-1, 1}, {0, 1025}, {1024, 1}, {1 << 62, 1}, {-1 << 63, 1}} {
		for _, st := range []Status{
			read.ReadAt(make([]byte, x[1]), x[0]), write.WriteAt(make([]byte, x[1]), x[0]),
			read.WriteAt(make([]byte, 1), 0), write.ReadAt(make([]byte, 1), 0),
			ready.ReadAt(make([]byte, 1), 0), ready.WriteAt(nil, 0), ready.Finish(), read.Finish(),
		} {
			if text(st) != "4/4400" {
				t.Errorf("part at %d of %d bytes: %s", x[0], x[1], text(st))
			}
		}
	}
	if st, r := ready.ReadAtNowait(nil, 0); text(st) != "4/4400" || r != Ready {
		t.Error(text(st))
	}
	holds(t, d, before, 0, nil)
}

func BenchmarkDecode(b *testing.B) {
	r := newRig(b, newDisk(64, 512))
	for name, cdb := range map[string]string{
		"READ(10)": "28 00 00000004 00 0002 00", "WRITE(16)": "8A 00 0000000000000009 00000001 00 00",
	} {
		raw := parse(b, cdb)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if c := r.nexus.Decode([8]byte{}, Simple, raw); c.Kind == Done {
					b.Fatal("not decoded")
				}
			}
		})
	}
}

func TestNoAllocations(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	p := make([]byte, 512)
	read, write := parse(t, "28 00 00000004 00 0001 00"), parse(t, "8A 00 0000000000000009 00000001 00 00")
	n := testing.AllocsPerRun(100, func() {
		c := r.nexus.Decode([8]byte{}, Simple, read)
		c.ReadAt(p, 0)
		w := r.nexus.Decode([8]byte{}, Simple, write)
		w.WriteAt(p, 0)
		w.Finish()
	})
	if n != 0 {
		t.Errorf("%v allocations for a READ and a WRITE", n)
	}
}
