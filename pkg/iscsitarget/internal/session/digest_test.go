package session

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

const protocolCRC = 0x0b4705

// digests is usual with digests.
func digests(header, data bool) text.Params {
	p := usual()
	p.HeaderDigest, p.DataDigest = header, data
	return p
}

// Every combination of digests moves data of all lengths, both ways; the client
// checks what the target sends.
func TestDigests(t *testing.T) {
	for _, header := range []bool{false, true} {
		for _, data := range []bool{false, true} {
			t.Run(fmt.Sprintf("header=%t,data=%t", header, data), func(t *testing.T) {
				p := digests(header, data)
				p.MaxRecvDataSegmentLength, p.MaxSendDataSegmentLength, p.FirstBurstLength = 4096, 2048, 8192
				r := newSite(t).join(p)
				for i, blocks := range []int{1, 2, 8, 17, 40, 600} {
					want := pattern(byte(i), blocks*block)
					good(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(i*1000, blocks), Out: want, Immediate: i * 700, Unsolicited: iscsitest.Most}))
					r.holds(i*1000, want)
					got := r.Do(iscsitest.Command{CDB: iscsitest.Read(i*1000, blocks), In: uint32(len(want))})
					good(t, got)
					if !bytes.Equal(got.Data, want) {
						t.Errorf("%d blocks were read wrong", blocks)
					}
				}
				for n := range uint32(9) {
					got := r.Do(iscsitest.Command{CDB: iscsitest.Inquiry(int(36 + n)), In: 36 + n})
					if got.Status != scsi.Good || len(got.Data) != int(36+n) {
						t.Errorf("INQUIRY of %d bytes: %v", 36+n, got)
					}
				}
				expect(t, r.Do(iscsitest.Command{CDB: iscsitest.Read(1<<30, 1), In: block}), scsi.CheckCondition, 0x052100)
				r.Alive()
			})
		}
	}
}

// damage sends a PDU with a byte of its data, padding or data digest changed.
func (r *rig) damage(h pdu.BHS, data []byte, back int) {
	r.Helper()
	b := r.Encode(h, data)
	b[len(b)-1-back] ^= 0x40
	if err := r.SendRaw(b); err != nil {
		r.Fatal(err)
	}
}

// rejected takes a Reject for a wrong data digest, with the header that it is
// about.
func (r *rig) rejected(h pdu.BHS, data []byte) {
	r.Helper()
	p := r.Expect(pdu.OpReject)
	h.SetDataLen(len(data))
	if pdu.ParseReject(&p.BHS).Reason != pdu.RejectDataDigest || !bytes.Equal(p.Data, h[:]) {
		r.Fatalf("reason %#02x for % x", pdu.ParseReject(&p.BHS).Reason, p.Data)
	}
}

// A header whose digest is wrong ends the connection: at once, without a Reject.
func TestDamagedHeaderEndsTheSession(t *testing.T) {
	for _, at := range []int{0, 1, 5, 16, 47, 48, 51} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			r := newSite(t).join(digests(true, true))
			b := r.Encode(r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: make([]byte, block)}, r.ITT()).Header(), pattern(1, block))
			b[at] ^= 0x40
			if err := r.SendRaw(b); err != nil {
				t.Fatal(err)
			}
			if left := r.ExpectClosed(); len(left) != 0 {
				t.Errorf("%d PDUs came", len(left))
			}
			if err := <-r.ended; !errors.Is(err, pdu.ErrHeaderDigest) {
				t.Errorf("ended with %v", err)
			}
			r.holds(0, make([]byte, block))
		})
	}
}

// RFC 7143 section 7.8: a damaged request other than Data-Out, immediate data
// among them, is discarded with its number, and taken when it comes again.
func TestDamagedRequestMayComeAgain(t *testing.T) {
	r := newSite(t).join(digests(true, true))
	want := pattern(1, block)
	cmd := iscsitest.Command{CDB: iscsitest.Write(3, 1), Out: want}
	h := r.Header(cmd, r.ITT())
	for back := range 9 {
		r.damage(h.Header(), want, back)
		r.rejected(h.Header(), want)
		r.holds(3, make([]byte, block))
		r.Alive() // which also says that ExpCmdSN has not moved on
	}
	// What comes behind it waits for its turn.
	r.CmdSN++
	r.Send(r.Header(iscsitest.Command{CDB: iscsitest.TestUnitReady()}, r.ITT()).Header(), nil)
	r.silent()
	r.Send(h.Header(), want)
	r.CmdSN++
	for range 2 {
		p := r.Expect(pdu.OpSCSIResponse)
		if resp := pdu.ParseSCSIResponse(&p.BHS); resp.Status != scsi.Good {
			t.Errorf("status %#02x", resp.Status)
		}
	}
	r.holds(3, want)

	nop := pdu.NopOut{ITT: r.ITT(), TTT: pdu.NoTag, CmdSN: r.CmdSN}.Header()
	r.damage(nop, []byte("ping"), 0)
	r.rejected(nop, []byte("ping"))
	r.Send(nop, []byte("ping"))
	r.CmdSN++
	if p := r.Expect(pdu.OpNopIn); string(p.Data) != "ping" {
		t.Errorf("NOP-In with %q", p.Data)
	}
	ask := pdu.TextRequest{Final: true, TTT: pdu.NoTag, ITT: r.ITT(), CmdSN: r.CmdSN, Immediate: true}.Header()
	r.damage(ask, []byte("SendTargets=\x00"), 3)
	r.rejected(ask, []byte("SendTargets=\x00"))
	r.Alive()
}

// A damaged Data-Out takes its task with it, when all of its burst has come: the
// disk holds nothing of the burst, and the session goes on.
func TestDamagedDataOut(t *testing.T) {
	const n = 4 * block
	for _, solicited := range []bool{true, false} {
		for bad := range 4 {
			t.Run(fmt.Sprintf("solicited=%t,PDU=%d", solicited, bad), func(t *testing.T) {
				p := digests(true, true)
				r := newSite(t).join(p)
				out := pattern(1, n)
				h := r.Header(iscsitest.Command{CDB: iscsitest.Write(0, 4), Out: out}, r.ITT())
				ttt := uint32(pdu.NoTag)
				h.Final = solicited
				r.CmdSN++
				r.Send(h.Header(), nil)
				if solicited {
					p := r.Expect(pdu.OpR2T)
					ttt = pdu.ParseR2T(&p.BHS).TTT
				}
				for i := range 4 {
					part := pdu.DataOut{Final: i == 3, ITT: h.ITT, TTT: ttt, DataSN: uint32(i), BufferOffset: uint32(i * block)}.Header()
					data := out[i*block:][:block]
					if i != bad {
						r.Send(part, data)
						continue
					}
					r.damage(part, data, i)
					r.rejected(part, data)
					if i < 3 {
						r.silent()
					}
				}
				resp := r.Expect(pdu.OpSCSIResponse)
				if got := pdu.ParseSCSIResponse(&resp.BHS); got.Status != scsi.CheckCondition || got.ITT != h.ITT {
					t.Fatalf("got %+v", got)
				}
				if got := (iscsitest.Result{Sense: resp.Data[2:]}).SenseCode(); got != protocolCRC {
					t.Errorf("sense %06x", got)
				}
				r.holds(0, make([]byte, n))
				good(t, r.Do(iscsitest.Command{CDB: iscsitest.Write(0, 4), Out: out}))
				r.holds(0, out)
			})
		}
	}
}

// A damaged Data-Out that belongs to nothing is rejected, and that is all.
func TestDamagedDataOutForNobody(t *testing.T) {
	for _, discovery := range []bool{false, true} {
		r := newSite(t).join(digests(false, true), func(i *Info) { i.Discovery = discovery })
		h := pdu.DataOut{Final: true, ITT: 0xdead, TTT: 0xbeef}.Header()
		for range 100 {
			r.damage(h, pattern(1, 13), 0)
			r.rejected(h, pattern(1, 13))
		}
		r.Alive()
	}
}

// Digests cost no memory: neither where they are made nor where they are
// checked.
func TestDigestsAllocateNothing(t *testing.T) {
	p := outgoing{data: pattern(1, 1021)}
	vec := make(net.Buffers, 0, 8)
	if n := testing.AllocsPerRun(100, func() { vec = p.appendTo(vec[:0], pdu.Digests{Header: true, Data: true}) }); n != 0 {
		t.Errorf("%v allocations a PDU sent", n)
	}
	one := pdu.Digests{Header: true, Data: true}.Append(nil, p.header, p.data)
	r := pdu.NewReader(&endless{of: one}, 8192, 0)
	r.SetDigests(pdu.Digests{Header: true, Data: true})
	next := func() {
		if p, err := r.Next(); err != nil || p.Damaged {
			t.Fatal(p.Damaged, err)
		}
	}
	for range 100 {
		next() // until the buffer has its size
	}
	if n := testing.AllocsPerRun(100, next); n != 0 {
		t.Errorf("%v allocations a PDU received", n)
	}
}

// endless reads the same bytes over and over.
type endless struct {
	of []byte
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.of[e.at:])
	e.at = (e.at + n) % len(e.of)
	return n, nil
}

// The Login Response goes without digests, what comes behind it with them.
func TestDigestsBeginBehindLogin(t *testing.T) {
	server, client := net.Pipe()
	o := newOutbox(server, newWindow(1, 1), 1, time.Second, pdu.Digests{Header: true, Data: true})
	o.send(pdu.LoginResponse{}.Header(), []byte("a=b\x00"), nil, takesStatSN)
	o.send(pdu.NopIn{}.Header(), []byte("ping"), nil, takesStatSN)
	o.finish()
	done := make(chan error, 1)
	go func() { done <- o.run() }()
	r := pdu.NewReader(client, 100, 0)
	if p, err := r.Next(); err != nil || string(p.Data) != "a=b\x00" {
		t.Errorf("%q, %v", p.Data, err)
	}
	r.SetDigests(pdu.Digests{Header: true, Data: true})
	if p, err := r.Next(); err != nil || p.Damaged || string(p.Data) != "ping" {
		t.Errorf("damaged %t, %q, %v", p.Damaged, p.Data, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = server.Close()
	_ = client.Close()
}
