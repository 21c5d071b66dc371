package session

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/mem"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/wire"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const block = 512

// site is a target with a disk behind a gate, and the sessions that use it. Its
// memory budgets must be back at zero when the test ends.
type site struct {
	testing.TB
	dev       *iscsitest.Gate
	inventory *scsi.Inventory
	unit      *scsi.Unit
	cfg       Config
	peersMu   sync.Mutex
	peers     []*Session
	targets   []text.Pair
	first     uint32 // CmdSN of a session
}

// front is what is in front of a site's gate.
var front = func(g *iscsitest.Gate) blockdev.Device { return g }

func newSite(t testing.TB) *site {
	t.Helper()
	disk, err := mem.New(64<<20, block)
	if err != nil {
		t.Fatal(err)
	}
	st := &site{TB: t, dev: iscsitest.NewGate(disk), inventory: scsi.NewInventory(), first: 1}
	st.unit, err = scsi.NewUnit(scsi.UnitConfig{Device: front(st.dev), Vendor: "V", Product: "P", Serial: "S", WriteCache: true, BootID: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.inventory.Add(0, st.unit); err != nil {
		t.Fatal(err)
	}
	st.cfg = Config{ReadBudget: NewBudget(8 << 20), WriteBudget: NewBudget(8 << 20), SessionBudget: 4 << 20, WriteTimeout: 10 * time.Second}
	t.Cleanup(func() {
		if err := st.unit.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func (st *site) Peers() []*Session {
	st.peersMu.Lock()
	defer st.peersMu.Unlock()
	return slices.Clone(st.peers)
}

func (st *site) Units() []*scsi.Unit                    { return []*scsi.Unit{st.unit} }
func (st *site) SendTargets(string) ([]text.Pair, bool) { return st.targets, st.targets != nil }

// rig is a client with its session.
type rig struct {
	*iscsitest.Client
	*site
	s     *Session
	c     *Connection
	ended chan error
}

// usual is what a Linux initiator ends up with.
func usual() text.Params {
	return text.Params{
		ImmediateData: true, MaxRecvDataSegmentLength: 256 << 10, MaxSendDataSegmentLength: 256 << 10,
		MaxBurstLength: 1 << 20, FirstBurstLength: 256 << 10, MaxOutstandingR2T: 1, DefaultTime2Wait: 2,
	}
}

// join starts a session with what was negotiated, seen from the target, over a
// TCP connection, and takes the unit attention of a new nexus.
func (st *site) join(p text.Params, edits ...func(*Info)) *rig {
	st.Helper()
	server, client := tcpPair(st)
	return st.joinOver(server, client, p, edits...)
}

func (st *site) joinOver(server, client net.Conn, p text.Params, edits ...func(*Info)) *rig {
	st.Helper()
	info := Info{Target: "iqn.t", Initiator: "iqn.i", TSIH: uint16(len(st.peers) + 1), Params: p}
	for _, edit := range edits {
		edit(&info)
	}
	var nexus *scsi.Nexus
	if !info.Discovery {
		var err error
		if nexus, err = st.inventory.Attach(scsi.NexusConfig{InitiatorPort: "iqn.i,i,0x1", TargetPort: "iqn.t,t,0x0001", TPGT: 1, Functions: Functions(p)}); err != nil {
			st.Fatal(err)
		}
	}
	s := New(st.cfg, info, st, st.inventory, nexus, st.first, func() {}, slog.New(slog.DiscardHandler))
	st.peersMu.Lock()
	st.peers = append(st.peers, s)
	st.peersMu.Unlock()
	r := st.connect(s, server, client, 7, p)
	r.CmdSN = st.first
	r.Join(seen(p))
	r.serve()
	st.Cleanup(func() {
		if st.Failed() {
			st.dev.Open() // or the end of the session would wait for ever
		}
		r.s.Close()
		<-r.s.Done()
		if used := st.cfg.ReadBudget.Used() + st.cfg.WriteBudget.Used(); used != 0 && st.allEnded() {
			st.Errorf("%d bytes of memory are still out", used)
		}
	})
	if !info.Discovery {
		r.Ready()
	}
	return r
}

// seen is what was negotiated, seen from the initiator.
func seen(p text.Params) text.Params {
	p.MaxRecvDataSegmentLength, p.MaxSendDataSegmentLength = p.MaxSendDataSegmentLength, p.MaxRecvDataSegmentLength
	return p
}

// connect makes a client's connection part of a session.
func (st *site) connect(s *Session, server, client net.Conn, cid uint16, p text.Params) *rig {
	st.Helper()
	r := &rig{site: st, Client: iscsitest.New(st, client), s: s, ended: make(chan error, 1)}
	r.CID = cid
	var err error
	if r.c, err = s.Connect(server, pdu.NewReader(server, 8192, 1020), cid, p, 1, iscsitest.Timeout); err != nil {
		st.Fatal(err)
	}
	return r
}

func (r *rig) serve() { go func() { r.ended <- r.c.Serve() }() }

func (st *site) allEnded() bool {
	for _, p := range st.Peers() {
		select {
		case <-p.Done():
		default:
			return false
		}
	}
	return true
}

func tcpPair(t testing.TB) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if server, err = wire.New(accepted.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	return server, client
}

// pattern is n bytes that come from no other seed.
func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// holds fails the test unless the disk has those bytes at a block.
func (st *site) holds(lba int, want []byte) {
	st.Helper()
	got := make([]byte, len(want))
	if _, err := st.dev.Device.ReadAt(got, int64(lba)*block); err != nil {
		st.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		st.Fatalf("the disk does not hold the %d bytes at block %d", len(want), lba)
	}
}

func (st *site) fill(lba int, b []byte) {
	st.Helper()
	if _, err := st.dev.Device.WriteAt(b, int64(lba)*block); err != nil {
		st.Fatal(err)
	}
}

// expect fails the test unless a command ended so: sense is key<<16|ASC<<8|ASCQ.
func expect(t testing.TB, r iscsitest.Result, status byte, sense int) {
	t.Helper()
	if r.Status != status || r.SenseCode() != sense {
		t.Fatalf("got %v, want status %#02x sense %06x", r, status, sense)
	}
}

func good(t testing.TB, r iscsitest.Result) {
	t.Helper()
	expect(t, r, scsi.Good, 0)
	if r.Residual != (pdu.Residual{}) {
		t.Fatalf("residual %+v", r.Residual)
	}
}

var _ blockdev.Device = (*iscsitest.Gate)(nil)
