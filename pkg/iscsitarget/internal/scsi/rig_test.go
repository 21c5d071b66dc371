package scsi

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// rig is a unit at LUN 0 and a nexus to it, past its first unit attention.
type rig struct {
	testing.TB
	inventory *Inventory
	unit      *Unit
	nexus     *Nexus
}

func newRig(t testing.TB, dev blockdev.Device, edits ...func(*UnitConfig)) *rig {
	t.Helper()
	r := newLonelyRig(t, dev, edits...)
	r.nexus = r.attach(NexusConfig{InitiatorPort: "iqn.i,i,0x1", TargetPort: "iqn.t,t,0x0001", TPGT: 1})
	return r
}

// newLonelyRig has no nexus.
func newLonelyRig(t testing.TB, dev blockdev.Device, edits ...func(*UnitConfig)) *rig {
	t.Helper()
	r := &rig{TB: t, inventory: NewInventory(), unit: newUnit(t, dev, edits...)}
	t.Cleanup(func() { _ = r.unit.Close() })
	if err := r.inventory.Add(0, r.unit); err != nil {
		t.Fatal(err)
	}
	return r
}

func newUnit(t testing.TB, dev blockdev.Device, edits ...func(*UnitConfig)) *Unit {
	t.Helper()
	c := UnitConfig{
		Device: dev, Vendor: "CSI-IETD", Product: "PV", Revision: "1", Serial: "serial-1",
		NAA: 0x3123456789ABCDEF, T10ID: "id-1", WriteCache: true, BootID: "boot-1", PhysicalBlockSize: 4096,
	}
	for _, edit := range edits {
		edit(&c)
	}
	u, err := NewUnit(c)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func writeThrough(c *UnitConfig) { c.WriteCache = false }
func readOnly(c *UnitConfig)     { c.ReadOnly = true }

// attach attaches and takes the first unit attention of every unit.
func (r *rig) attach(c NexusConfig) *Nexus {
	r.Helper()
	n, err := r.inventory.Attach(c)
	if err != nil {
		r.Fatal(err)
	}
	for _, l := range *n.luns.Load() {
		for pending := true; pending; {
			_, pending = l.attentions.take()
		}
	}
	return n
}

// do runs a command on LUN 0 as a session does, in parts of 1000 bytes.
func (r *rig) do(cdb string, out ...byte) ([]byte, Status) {
	r.Helper()
	return run(r, r.nexus, cdb, out)
}

func run(t testing.TB, n *Nexus, cdb string, out []byte) ([]byte, Status) {
	t.Helper()
	return perform(n.Decode([8]byte{}, Simple, parse(t, cdb)), out)
}

func perform(c Command, out []byte) ([]byte, Status) {
	switch c.Kind {
	case Exec:
		return c.Execute(context.Background(), out[:min(int64(len(out)), c.Length)])
	case Read:
		return inParts(c.Length, c.ReadAt)
	case Write:
		var st Status
		for off := int64(0); off < c.Length && st.code == Good; off += 1000 {
			st = c.WriteAt(out[off:min(off+1000, c.Length)], off)
		}
		if st.code == Good {
			st = c.Finish()
		}
		return nil, st
	}
	return c.Data, c.Status
}

func inParts(length int64, read func([]byte, int64) Status) ([]byte, Status) {
	data := make([]byte, length)
	for off := int64(0); off < length; off += 1000 {
		if st := read(data[off:min(off+1000, length)], off); st.code != Good {
			return nil, st
		}
	}
	return data, StatusGood
}

// parse reads a CDB, or other bytes, in hexadecimal with blanks; a CDB is
// filled up to 16 bytes.
func parse(t testing.TB, s string) []byte {
	t.Helper()
	return append(unhex(t, s), make([]byte, 16)...)[:max(16, len(unhex(t, s)))]
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// text is a status as "good", "5/2400", "5/2400 byte 1 bit 7" or "3/1100 at 9".
func text(st Status) string {
	if st.code != CheckCondition {
		return map[byte]string{Good: "good", TaskAborted: "aborted", Busy: "busy", ACAActive: "aca", ReservationConflict: "conflict"}[st.code]
	}
	s := fmt.Sprintf("%X/%04X", byte(st.sense.key), st.sense.code)
	if p := st.sense.specific; p[0]&0x80 != 0 {
		where := "param"
		if p[0]&0x40 != 0 {
			where = "byte"
		}
		s += fmt.Sprintf(" %s %d bit %d", where, int(p[1])<<8|int(p[2]), p[0]&7)
	}
	if st.sense.hasInfo {
		s += fmt.Sprintf(" at %d", st.sense.info)
	}
	return s
}

// expect runs a command that ends with a status and without data.
func (r *rig) expect(want, cdb string, out ...byte) {
	r.Helper()
	data, st := r.do(cdb, out...)
	if text(st) != want || len(data) > 0 && st.code != Good {
		r.Errorf("%s: %s with %d bytes, want %s", cdb, text(st), len(data), want)
	}
}

// golden runs a command that gives data; trailing zeros of want may be left out.
func (r *rig) golden(cdb, want string) {
	r.Helper()
	data, st := r.do(cdb)
	w := unhex(r, want)
	w = append(w, make([]byte, max(0, len(data)-len(w)))...)
	if st.code != Good || !bytes.Equal(data, w) {
		r.Errorf("%s: %s\n got %x\nwant %x", cdb, text(st), data, w)
	}
}

// pattern is n bytes that differ from what newDisk holds.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*13+i/512) &^ 1
	}
	return b
}

// holds checks the medium from a block on, and that nothing else changed since
// before.
func holds(t testing.TB, d *disk, before []byte, lba int, want []byte) {
	t.Helper()
	expected := bytes.Clone(before)
	copy(expected[lba*d.block:], want)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !bytes.Equal(d.now, expected) {
		t.Errorf("the medium differs at byte %d from what was written at block %d", firstDifference(d.now, expected), lba)
	}
}
