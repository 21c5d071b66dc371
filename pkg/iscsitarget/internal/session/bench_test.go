package session

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// BenchmarkCommand is a whole command of a cached disk, from its header on the wire to its
// status, over TCP and over a connection in memory. The client allocates nothing.
func BenchmarkCommand(b *testing.B) {
	onCached(b)
	for name, connect := range map[string]func(testing.TB) (server, client net.Conn){
		"tcp": tcpPair, "memory": func(testing.TB) (server, client net.Conn) { return net.Pipe() },
	} {
		for op, cmd := range map[string]iscsitest.Command{
			"read 4k":   {CDB: iscsitest.Read(0, 8), In: 4 << 10},
			"read 64k":  {CDB: iscsitest.Read(0, 128), In: 64 << 10},
			"write 4k":  {CDB: iscsitest.Write(0, 8), Out: pattern(1, 4<<10), Immediate: iscsitest.Most},
			"write 64k": {CDB: iscsitest.Write(0, 128), Out: pattern(1, 64<<10), Immediate: iscsitest.Most},
		} {
			b.Run(name+"/"+op, func(b *testing.B) {
				server, client := connect(b)
				r := newSite(b).joinOver(server, client, usual())
				c := r.raw(cmd, int(cmd.In))
				b.SetBytes(int64(cmd.In) + int64(len(cmd.Out)))
				b.ReportAllocs()
				for b.Loop() {
					c.do(&r.CmdSN)
				}
			})
		}
	}
}

// BenchmarkDigests is eight commands at once over TCP, without digests and with both: the
// client checks those of what it reads, on the same processors, as an initiator would.
func BenchmarkDigests(b *testing.B) {
	onCached(b)
	for op, cmd := range map[string]iscsitest.Command{
		"read 64k":   {CDB: iscsitest.Read(0, 128), In: 64 << 10},
		"read 1M":    {CDB: iscsitest.Read(0, 2048), In: 1 << 20},
		"write 64k":  {CDB: iscsitest.Write(0, 128), Out: pattern(1, 64<<10), Immediate: iscsitest.Most},
		"write 256k": {CDB: iscsitest.Write(0, 512), Out: pattern(1, 256<<10), Immediate: iscsitest.Most},
	} {
		for _, d := range []pdu.Digests{{}, {Header: true, Data: true}} {
			b.Run(fmt.Sprintf("%s/%v", op, d.Data), func(b *testing.B) {
				p := usual()
				p.HeaderDigest, p.DataDigest = d.Header, d.Data
				r := newSite(b).join(p)
				c := &flow{rig: r, digests: d, header: r.Header(cmd, 1).Header(), out: cmd.Out, size: int(cmd.In), in: make([]byte, maxBuffer+pdu.DigestLen)}
				b.SetBytes(int64(cmd.In) + int64(len(cmd.Out)))
				for range 8 {
					c.send()
				}
				for b.Loop() {
					c.send()
					c.receive()
				}
				for range 8 {
					c.receive()
				}
			})
		}
	}
}

// flow sends one command over and over, and takes the answers in their order.
type flow struct {
	*rig
	digests pdu.Digests
	header  pdu.BHS
	out     []byte
	size    int // of the answer
	in      []byte
	wire    []byte
}

func (f *flow) send() {
	binary.BigEndian.PutUint32(f.header[24:], f.CmdSN)
	binary.BigEndian.PutUint32(f.header[16:], f.CmdSN)
	f.CmdSN++
	f.wire = f.digests.Append(f.wire[:0], f.header, f.out)
	if _, err := f.Conn.Write(f.wire); err != nil {
		f.Fatal(err)
	}
}

func (f *flow) receive() {
	for got := 0; ; {
		h := pdu.BHS(f.take(pdu.BHSLen, f.digests.Header))
		if n := h.DataLen(); n > 0 {
			f.take(n, f.digests.Data)
			got += n
		}
		if got == f.size {
			return
		}
	}
}

// take takes n bytes, and the digest that follows, which it checks.
func (f *flow) take(n int, digest bool) []byte {
	p := f.in[:n]
	if digest {
		p = f.in[:n+pdu.DigestLen]
	}
	if _, err := io.ReadFull(f.Conn, p); err != nil {
		f.Fatal(err)
	}
	if digest && [pdu.DigestLen]byte(p[n:]) != pdu.Digest(p[:n]) {
		f.Fatal("a wrong digest")
	}
	return p[:n]
}
