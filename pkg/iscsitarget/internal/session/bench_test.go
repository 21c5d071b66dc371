package session

import (
	"net"
	"testing"

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
