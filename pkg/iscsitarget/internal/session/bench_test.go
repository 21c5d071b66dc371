package session

import (
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// BenchmarkSimpleTasks is a SIMPLE read and a SIMPLE write of a block, one after
// the other, from the header on the wire to the status: what the client allocates
// is in the figure.
func BenchmarkSimpleTasks(b *testing.B) {
	r := newSite(b).join(usual())
	read := r.Header(iscsitest.Command{CDB: iscsitest.Read(0, 1), In: block}, 1)
	write := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: pattern(1, block)}, 2)
	data := pattern(1, block)
	round := func(h pdu.SCSICommand, data []byte) {
		h.CmdSN = r.CmdSN
		r.CmdSN++
		r.Send(h.Header(), data)
		r.Recv()
	}
	b.ReportAllocs()
	for b.Loop() {
		round(read, nil)
		round(write, data)
	}
}
