package session

import (
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// hostile is an initiator that sends whatever it is told to, over several connections
// of one session, and takes what comes without looking.
type hostile struct {
	*site
	s      *Session
	conns  [3]net.Conn
	wg     sync.WaitGroup
	cmdSN  uint32
	statSN uint32
}

func newHostile(t *testing.T, level uint32) *hostile {
	st := newSite(t)
	p := several()
	p.ErrorRecoveryLevel, p.DefaultTime2Wait, p.DefaultTime2Retain = level, 0, 1
	p.MaxSendDataSegmentLength, p.MaxRecvDataSegmentLength, p.FirstBurstLength, p.MaxBurstLength = 1024, 4096, 4096, 8192
	nexus, err := st.inventory.Attach(scsi.NexusConfig{InitiatorPort: "iqn.i,i,0x1", TargetPort: "iqn.t,t,0x0001", TPGT: 1, Functions: Functions(p)})
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{site: st, cmdSN: st.first, statSN: 1}
	h.s = New(st.cfg, Info{Target: "iqn.t", Initiator: "iqn.i", TSIH: 1, Params: p}, st, st.inventory, nexus, st.first, func() {}, slog.New(slog.DiscardHandler))
	st.peers = append(st.peers, h.s)
	h.connect(0)
	return h
}

// connect opens the connection with that CID, in place of the one that there may be.
func (h *hostile) connect(i int) {
	server, client := tcpPair(h)
	c, err := h.s.Connect(server, pdu.NewReader(server, 8192, 1020), uint16(i), h.s.Params, 1, time.Second)
	if err != nil { // the session is over
		_ = server.Close()
		_ = client.Close()
		return
	}
	if old := h.conns[i]; old != nil {
		_ = old.Close()
	}
	h.conns[i] = client
	h.wg.Go(func() { _ = c.Serve() })
	h.wg.Go(func() { _, _ = io.Copy(io.Discard, client) })
}

// do is one step: six bytes of the fuzzer's.
func (h *hostile) do(b [6]byte) {
	i := int(b[0]) % len(h.conns)
	switch {
	case b[1]%16 == 15 || h.conns[i] == nil:
		h.connect(i)
		return
	case b[1]%16 == 14:
		_ = h.conns[i].Close()
		return
	}
	itt, lun := uint32(b[2]%16), iscsitest.LUN(b[3]%16/15)
	sn := h.cmdSN
	if b[0] < 200 {
		h.cmdSN++
	} else {
		sn += uint32(b[5] % 4)
	}
	ack := h.statSN + uint32(b[4]%64)
	immediate := b[0]&0x40 != 0
	n := int(b[5]) * 64
	var header pdu.BHS
	var data []byte
	switch b[1] % 16 {
	case 0, 1:
		header = pdu.SCSICommand{Immediate: immediate, Final: b[4]&1 != 0, Write: true, Attr: b[4] % 6, LUN: lun, ITT: itt, ExpectedLength: uint32(n), CmdSN: sn, ExpStatSN: ack, CDB: [16]byte{0x2A, 5: b[3], 8: b[5] / 8}}.Header()
		data = make([]byte, min(n, int(b[4])*16))
	case 2, 3:
		header = pdu.SCSICommand{Immediate: immediate, Final: true, Read: true, Attr: b[4] % 6, LUN: lun, ITT: itt, ExpectedLength: uint32(n), CmdSN: sn, ExpStatSN: ack, CDB: [16]byte{0x28, 5: b[3], 8: b[5] / 8}}.Header()
	case 4, 5:
		header = pdu.DataOut{Final: b[4]&1 != 0, ITT: itt, TTT: uint32(b[3]) - 1, ExpStatSN: ack, DataSN: uint32(b[4] % 4), BufferOffset: uint32(b[5]) * 512}.Header()
		data = make([]byte, min(n, 4096))
	case 6, 7:
		header = pdu.TaskManagement{Immediate: immediate, Function: b[3] % 14, LUN: lun, ITT: itt + 100, RefTaskTag: uint32(b[4] % 16), CmdSN: sn, ExpStatSN: ack, RefCmdSN: sn - uint32(b[5]%8), ExpDataSN: uint32(b[5] % 8)}.Header()
	case 8, 9:
		header = pdu.SNACK{Type: b[3] % 5, LUN: lun, ITT: itt, TTT: uint32(b[4]), ExpStatSN: ack, BegRun: uint32(b[5]%16) + uint32(b[0]&1)*h.statSN, RunLength: uint32(b[4] % 4)}.Header()
	case 10:
		header = pdu.LogoutRequest{Immediate: immediate, Reason: 1 + b[3]%2, CID: uint16(b[4] % 4), ITT: itt, CmdSN: sn, ExpStatSN: ack}.Header()
	case 11:
		header = pdu.NopOut{Immediate: immediate, ITT: itt, TTT: pdu.NoTag, CmdSN: sn, ExpStatSN: ack}.Header()
		data = make([]byte, n/16)
	case 12:
		header = pdu.TextRequest{Immediate: immediate, Final: b[4]&1 != 0, Continue: b[4]&2 != 0, ITT: itt, TTT: uint32(b[3]) - 1, CmdSN: sn, ExpStatSN: ack}.Header()
		data = []byte("MaxRecvDataSegmentLength=600\x00")[:b[5]%29]
	case 13:
		h.statSN = ack
		return
	}
	_ = h.conns[i].SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = h.conns[i].Write(iscsitest.Encode(header, data))
}

// end closes the session, which must end, with nothing left.
func (h *hostile) end() {
	h.s.Close()
	select {
	case <-h.s.Done():
	case <-time.After(iscsitest.Timeout):
		h.Fatal("the session does not end")
	}
	for _, c := range h.conns {
		if c != nil {
			_ = c.Close()
		}
	}
	h.wg.Wait()
	if used := h.cfg.ReadBudget.Used() + h.cfg.WriteBudget.Used(); used != 0 {
		h.Errorf("%d bytes of memory are still out", used)
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	if n := len(h.s.tasks) + len(h.s.bursts) + len(h.s.acks) + h.s.immediate; n != 0 {
		h.Errorf("left: %d tasks, %d bursts, %d tags, %d immediate commands", len(h.s.tasks), len(h.s.bursts), len(h.s.acks), h.s.immediate)
	}
}

// Whatever is sent over the connections of a session, in whichever order they come and
// go, the session ends when it is closed, and nothing is left of it.
func FuzzSession(f *testing.F) {
	f.Add(byte(2), []byte("\x00\x00\x01\x00\x01\x40\x00\x02\x02\x00\x00\x40\x01\x0f\x00\x00\x00\x00\x01\x02\x03\x00\x00\x80\x01\x0e\x00\x00\x00\x00\x40\x0a\x07\x01\x01\x00\x40\x06\x09\x08\x03\x00"))
	f.Add(byte(1), []byte("\x00\x02\x01\x00\x01\xff\x00\x08\x01\x00\x00\x00\x00\x08\x01\x01\x00\x00\x00\x0d\x00\x00\x09\x00\x00\x04\x01\x01\x01\x10"))
	f.Add(byte(0), []byte("\x40\x06\x01\x05\x00\x00\x40\x06\x01\x06\x00\x00\x00\x0c\x01\x00\x01\x1c\x00\x0b\x01\x00\x00\xff"))
	f.Fuzz(func(t *testing.T, level byte, steps []byte) {
		h := newHostile(t, uint32(level%3))
		for len(steps) >= 6 {
			h.do([6]byte(steps))
			steps = steps[6:]
		}
		h.end()
	})
}
