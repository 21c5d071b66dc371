package session

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/mem"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// TestAtomicWriteSizes: the data of an atomic write, up to its limit, is there as
// a whole however it was sent.
func TestAtomicWriteSizes(t *testing.T) {
	disk, err := mem.New(4<<20, block)
	if err != nil {
		t.Fatal(err)
	}
	unit, err := scsi.NewUnit(scsi.UnitConfig{Device: disk, Vendor: "V", Product: "P", Serial: "A", BootID: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unit.Close() })
	for _, r2t := range []bool{false, true} {
		p := usual()
		p.InitialR2T, p.MaxBurstLength, p.FirstBurstLength = r2t, 128<<10, 64<<10
		st := newSite(t)
		if err := st.inventory.Add(1, unit); err != nil {
			t.Fatal(err)
		}
		r := st.join(p)
		r.Do(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: iscsitest.TestUnitReady()}) // takes the unit attention
		seed := byte(0)
		for _, n := range []int{4 << 10, 64 << 10, 68 << 10, 128 << 10, 132 << 10, 256 << 10} {
			for _, w := range []struct{ immediate, unsolicited int }{{0, 0}, {iscsitest.Most, 0}, {4096, iscsitest.Most}} {
				seed++
				want, got := pattern(seed, n), make([]byte, n)
				cdb := make([]byte, 16)
				cdb[0], cdb[9], cdb[12], cdb[13] = 0x9C, 8, byte(n/block>>8), byte(n/block)
				good(t, r.Do(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: cdb, Out: want, Immediate: w.immediate, Unsolicited: w.unsolicited}))
				if _, err := disk.ReadAt(got, 8*block); err != nil || !bytes.Equal(got, want) {
					t.Error(fmt.Sprintf("%d bytes, %+v: not what was sent", n, w), err)
				}
			}
		}
	}
}
