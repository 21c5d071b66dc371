package iscsitarget_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/mem"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

const copyNAA = 0x3000000000000002

// copies is EXTENDED COPY(LID1) of blocks from the start of LUN 0 to block to of
// the unit that has the NAA identifier.
func copies(naa uint64, blocks uint16, to uint64) iscsitest.Command {
	list := make([]byte, 16, 16+32+28)
	list[3], list[11] = 32, 28
	cscd := make([]byte, 32)
	copy(cscd, []byte{0xE4, 0, 0, 0, 1, 3, 0, 8})
	binary.BigEndian.PutUint64(cscd[8:], naa)
	segment := make([]byte, 28)
	copy(segment, []byte{2, 0, 0, 24, 0xFF, 0xFF})
	binary.BigEndian.PutUint16(segment[10:], blocks)
	binary.BigEndian.PutUint64(segment[20:], to)
	list = append(append(list, cscd...), segment...)
	return iscsitest.Command{CDB: []byte{0x83, 13: byte(len(list)), 15: 0}, Out: list, Immediate: iscsitest.Most}
}

// withSecond adds a LUN 1.
func (r *rig) withSecond() *mem.Device {
	r.Helper()
	disk, err := mem.New(16<<20, block)
	if err != nil {
		r.Fatal(err)
	}
	if err := r.target.AddLUN(1, iscsitarget.LUNConfig{Device: disk, Serial: "S2", NAA: copyNAA, WriteCache: true}); err != nil {
		r.Fatal(err)
	}
	return disk
}

func TestExtendedCopy(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	second := r.withSecond()
	c := r.login(1)
	want := pattern(1, 2048*block)
	if _, err := r.disk.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	good(t, c.Do(copies(copyNAA, 2048, 100)))
	got := make([]byte, len(want))
	if _, err := second.ReadAt(got, 100*block); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy did not arrive (%v)", err)
	}
	if res := c.Do(copies(copyNAA+1, 1, 0)); res.SenseCode() != 0x0A0D02 {
		t.Errorf("a copy to nowhere: %v", res)
	}
}

// A copy stays within the target, whatever else the server exports.
func TestExtendedCopyStaysInTheTarget(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	other := r.addTarget(target + "-2")
	disk, err := mem.New(16<<20, block)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.AddLUN(0, iscsitarget.LUNConfig{Device: disk, Serial: "S2", NAA: copyNAA}); err != nil {
		t.Fatal(err)
	}
	if err := other.Permit(iscsitarget.Grant{Initiator: node}); err != nil {
		t.Fatal(err)
	}
	c := r.login(1)
	good(t, c.Do(write(0, pattern(1, block))))
	if res := c.Do(copies(copyNAA, 1, 0)); res.SenseCode() != 0x0A0D02 {
		t.Errorf("%v", res)
	}
	got := make([]byte, block)
	if _, err := disk.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, block)) {
		t.Errorf("the disk of another target was written to (%v)", err)
	}
}

// Revoke is the fence for copies, too: it returns when the step under way is over,
// and there is no other after that.
func TestRevokeEndsACopy(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	second := r.withSecond()
	want := pattern(1, 4096*block)
	if _, err := r.disk.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	c := r.login(1)
	hold := r.gate.Hold(iscsitest.ReadAt)
	t.Cleanup(hold.Release)
	c.Start(copies(copyNAA, 4096, 0))
	hold.Await(t)
	done := later(t, func() error { return r.target.Revoke(within(t, time.Minute), node) })
	c.ExpectClosed()
	waits(t, "Revoke", done)
	hold.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := second.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	const step = 256 << 10
	if !bytes.Equal(got[step:], make([]byte, len(got)-step)) {
		t.Error("the copy went on behind the fence")
	}
}
