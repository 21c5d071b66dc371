package session

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// Reads of sizes around every limit come back whole; the client checks DataSN,
// offsets, bursts and status.
func TestReadSizes(t *testing.T) {
	for _, segment := range []uint32{512, 513, 8191, 65536, 1<<24 - 1} {
		for _, burst := range []uint32{512, 8192, 65535, 262144, 1 << 20} {
			p := usual()
			p.MaxSendDataSegmentLength, p.MaxBurstLength = segment, burst
			p.FirstBurstLength = min(p.FirstBurstLength, burst)
			t.Run(fmt.Sprintf("segment=%d,burst=%d", segment, burst), func(t *testing.T) {
				r := newSite(t).join(p)
				want := pattern(1, 1<<20)
				r.fill(3, want)
				for _, n := range []int{1, 2, 15, 16, 17, 127, 128, 129, 512, 513, 1111} {
					got := r.Do(iscsitest.Command{CDB: iscsitest.Read(3, n), In: uint32(n * block)})
					good(t, got)
					if !bytes.Equal(got.Data, want[:n*block]) {
						t.Fatalf("%d blocks came back as others", n)
					}
				}
			})
		}
	}
}

func TestReadResiduals(t *testing.T) {
	for _, tt := range []struct {
		blocks int
		expect uint32
		want   pdu.Residual
		data   int
	}{
		{1, 0, pdu.Residual{Overflow: true, Count: 512}, 0},
		{1, 200, pdu.Residual{Overflow: true, Count: 312}, 200},
		{2, 512, pdu.Residual{Overflow: true, Count: 512}, 512},
		{1, 10000, pdu.Residual{Underflow: true, Count: 9488}, 512},
		{0, 512, pdu.Residual{Underflow: true, Count: 512}, 0},
		{300, 1 << 31, pdu.Residual{Underflow: true, Count: 1<<31 - 300*512}, 300 * 512},
		{1, 0xffffffff, pdu.Residual{Underflow: true, Count: 0xffffffff - 512}, 512},
	} {
		t.Run(fmt.Sprintf("%d blocks, %d expected", tt.blocks, tt.expect), func(t *testing.T) {
			r := newSite(t).join(usual())
			want := pattern(1, 300*block)
			r.fill(0, want)
			got := r.Do(iscsitest.Command{CDB: iscsitest.Read(0, tt.blocks), In: tt.expect})
			if got.Status != scsi.Good || got.Residual != tt.want || !bytes.Equal(got.Data, want[:tt.data]) {
				t.Fatalf("got %v, want %+v and %d bytes", got, tt.want, tt.data)
			}
		})
	}
}

// Data that is in memory, as INQUIRY's, comes in segments, cut to what the
// initiator expects.
func TestDeliver(t *testing.T) {
	p := usual()
	p.MaxSendDataSegmentLength, p.MaxBurstLength = 512, 512
	r := newSite(t).join(p)
	whole := r.Do(iscsitest.Command{CDB: iscsitest.Inquiry(255), In: 255})
	expect(t, whole, scsi.Good, 0)
	for _, n := range []uint32{1, 5, 36} {
		got := r.Do(iscsitest.Command{CDB: iscsitest.Inquiry(255), In: n})
		want := pdu.Residual{Overflow: true, Count: uint32(len(whole.Data)) - n}
		if int(n) == len(whole.Data) {
			want = pdu.Residual{}
		}
		if !bytes.Equal(got.Data, whole.Data[:n]) || got.Residual != want {
			t.Errorf("%d bytes: %v, want residual %+v", n, got, want)
		}
	}
}

// A read that a device fails part way ends with CHECK CONDITION and a residual
// that says how much came.
func TestReadFailsPartWay(t *testing.T) {
	st := newSite(t)
	p := usual()
	p.MaxSendDataSegmentLength = 64 << 10
	r := st.join(p)
	st.dev.Device = &failing{Device: st.dev.Device, from: 128 << 10}
	got := r.Do(iscsitest.Command{CDB: iscsitest.Read(0, 512), In: 256 << 10})
	if got.Status != scsi.CheckCondition || got.SenseCode()>>16 != 3 || len(got.Data) != 128<<10 ||
		got.Residual != (pdu.Residual{Underflow: true, Count: 128 << 10}) {
		t.Fatalf("got %v", got)
	}
	r.Alive()
}

type failing struct {
	blockdev.Device
	from int64
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, errors.New("bad sector")
	}
	return f.Device.ReadAt(p, off)
}

// Reads whose data nobody takes hold no more memory than the budget, and all of
// it comes back.
func TestReadBudget(t *testing.T) {
	st := newSite(t)
	st.cfg.ReadBudget, st.cfg.SessionBudget = NewBudget(512<<10), 512<<10
	r := st.join(usual())
	var tags []uint32
	for range 100 {
		tags = append(tags, r.Start(iscsitest.Command{CDB: iscsitest.Read(0, 1024), In: 512 << 10}))
	}
	for _, itt := range tags {
		good(t, r.Wait(itt))
	}
}
