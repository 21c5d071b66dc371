package scsi

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// NAA identifiers of the copy rig's units.
const (
	naaFirst  = 0x3123456789ABCDEF // LUN 0, newUnit's
	naaSecond = 0x3000000000000002 // LUN 1
	naaAbsent = 0x3000000000000003
)

// copyRig has two units, and the nexus sees both.
type copyRig struct {
	*rig
	second *Unit
}

func second(c *UnitConfig) { c.NAA, c.T10ID, c.Serial = naaSecond, "id-2", "serial-2" }

func newCopyRig(t testing.TB, first, other blockdev.Device, edits ...func(*UnitConfig)) *copyRig {
	t.Helper()
	r := &copyRig{rig: newLonelyRig(t, first), second: newUnit(t, other, append([]func(*UnitConfig){second}, edits...)...)}
	t.Cleanup(func() { _ = r.second.Close() })
	if err := r.inventory.Add(1, r.second); err != nil {
		t.Fatal(err)
	}
	r.nexus = r.attach(NexusConfig{InitiatorPort: "iqn.i,i,0x1", TargetPort: "iqn.t,t,0x0001", TPGT: 1})
	return r
}

// doOn is do on another LUN.
func (r *copyRig) doOn(lun byte, cdb string, out ...byte) ([]byte, Status) {
	r.Helper()
	return perform(r.nexus.Decode([8]byte{0, lun}, Simple, parse(r, cdb)), out)
}

// byNAA is an identification descriptor for units of 512 bytes a block.
func byNAA(naa uint64) []byte {
	b := make([]byte, cscdBytes)
	copy(b, []byte{cscdIdentification, 0, 0, 0, codeSetBinary, designatorNAA, 0, 8})
	binary.BigEndian.PutUint64(b[8:], naa)
	return b
}

// blockToBlock is a segment descriptor.
func blockToBlock(flags byte, source, destination, blocks uint16, from, to uint64) []byte {
	b := []byte{segmentBlockToBlock, flags, 0, 0x18}
	b = binary.BigEndian.AppendUint16(b, source)
	b = binary.BigEndian.AppendUint16(b, destination)
	b = binary.BigEndian.AppendUint16(append(b, 0, 0), blocks)
	b = binary.BigEndian.AppendUint64(b, from)
	return binary.BigEndian.AppendUint64(b, to)
}

func joined(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// list1 is EXTENDED COPY(LID1)'s parameter list.
func list1(id, flags byte, cscds, segments []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{id, flags}, uint16(len(cscds)))
	b = binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 0), uint32(len(segments)))
	return joined(b, make([]byte, 4), cscds, segments)
}

// list4 is EXTENDED COPY(LID4)'s.
func list4(id uint32, flags byte, cscds, segments []byte) []byte {
	b := make([]byte, 48)
	copy(b, []byte{1, flags, 0, 0x20})
	b[16] = cscdExtension
	binary.BigEndian.PutUint32(b[20:], id)
	binary.BigEndian.PutUint16(b[42:], uint16(len(cscds)))
	binary.BigEndian.PutUint16(b[44:], uint16(len(segments)))
	return joined(b, cscds, segments)
}

func copyCDB(action byte, length int) string {
	return fmt.Sprintf("83 %02X 0000000000000000 %08X 00 00", action, length)
}

// holeyDisk knows that all of it but the data is a hole, and counts what is read.
type holeyDisk struct {
	thinDisk
	data extent
	read *int64
}

func (d holeyDisk) ReadAt(p []byte, off int64) (int, error) {
	*d.read += int64(len(p))
	return d.disk.ReadAt(p, off)
}

func (d holeyDisk) Mapped(off int64) (bool, int64, error) {
	switch {
	case off < d.data.at:
		return false, d.data.at - off, nil
	case off < d.data.at+d.data.length:
		return true, d.data.at + d.data.length - off, nil
	}
	return false, d.Size() - off, nil
}

// copyDisk copies by itself, unless it is told not to.
type copyDisk struct {
	*disk
	calls   *atomic.Int64
	refuses *bool
}

func newCopyDisk(d *disk) copyDisk { return copyDisk{d, new(atomic.Int64), new(bool)} }

func (d copyDisk) CopyFrom(src blockdev.Device, srcOff, dstOff, n int64) error {
	d.calls.Add(1)
	from, ok := src.(copyDisk)
	if !ok || *d.refuses || from.disk == d.disk && blockdev.Overlap(srcOff, dstOff, n) {
		return blockdev.ErrCannotCopy
	}
	p := make([]byte, n)
	if _, err := from.ReadAt(p, srcOff); err != nil {
		return err
	}
	_, err := d.WriteAt(p, dstOff)
	return err
}
