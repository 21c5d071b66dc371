// Package iscsitest is a scripted iSCSI initiator for tests. It has no
// goroutine of its own: a test sends PDUs and takes those that come, or lets
// [Client.Do] run a whole SCSI command. Whatever arrives is held to RFC 7143's
// numbering rules, so that every test checks them.
package iscsitest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// Timeout is how long a client waits for a PDU that must come.
const Timeout = 20 * time.Second

// maxData is the longest data segment that a client takes: what it declares is
// checked beside it.
const maxData = 1<<24 - 1

// Client is an initiator's end of one connection. One goroutine uses it.
type Client struct {
	net.Conn
	// Params are what login negotiated, seen from the initiator:
	// MaxSendDataSegmentLength is what the target takes.
	Params text.Params
	ISID   pdu.ISID
	CID    uint16
	TSIH   uint16
	*Numbering
	// ExpStatSN is the next status expected.
	ExpStatSN uint32
	// ExpCmdSN and MaxCmdSN are what the target said last.
	ExpCmdSN, MaxCmdSN uint32
	// Unasked are the PDUs that no command of this client waited for.
	Unasked []pdu.PDU
	// MutePings leaves the target's NOP-Ins unanswered, MuteACKs the Data-Ins
	// that are to be acknowledged.
	MutePings, MuteACKs bool
	// Resent: PDUs come again, so that StatSN is not held to anything.
	Resent bool

	tb      testing.TB
	reader  *pdu.Reader
	running map[uint32]*exchange
	full    bool // in full-feature phase
	joins   bool // another connection of a session
}

// Numbering is what the connections of a session have in common.
type Numbering struct {
	// CmdSN is the next command's.
	CmdSN   uint32
	nextITT uint32
}

// Joins makes the client's connection another one of a session that a client has:
// one goroutine uses both. A login comes behind it, or a Join.
func (c *Client) Joins(leading *Client) {
	c.Numbering, c.ISID, c.TSIH = leading.Numbering, leading.ISID, leading.TSIH
	c.ExpCmdSN, c.MaxCmdSN, c.joins = leading.ExpCmdSN, leading.MaxCmdSN, true
}

// Dial connects to a target; the connection is closed when the test ends.
func Dial(tb testing.TB, addr string) *Client {
	tb.Helper()
	conn, err := net.DialTimeout("tcp", addr, Timeout)
	if err != nil {
		tb.Fatalf("iscsitest: %v", err)
	}
	return New(tb, conn)
}

// New makes a client on a connection, which is closed when the test ends.
func New(tb testing.TB, conn net.Conn) *Client {
	tb.Cleanup(func() { _ = conn.Close() })
	return &Client{
		Conn: conn, tb: tb, reader: pdu.NewReader(conn, maxData, 255*4),
		ISID: pdu.ISID{0x80, 1, 2, 3, 4, 5}, Numbering: &Numbering{CmdSN: 1, nextITT: 0x10}, ExpStatSN: 1,
		running: map[uint32]*exchange{},
		Params:  text.Params{MaxRecvDataSegmentLength: 8192, MaxSendDataSegmentLength: 8192}, // until login settles them
	}
}

// Encode is a PDU as it goes over the wire, without digests.
func Encode(h pdu.BHS, data []byte) []byte { return pdu.Digests{}.Append(nil, h, data) }

// Encode is a PDU as it goes over this connection's wire, with the digests that
// were negotiated.
func (c *Client) Encode(h pdu.BHS, data []byte) []byte { return c.digests().Append(nil, h, data) }

func (c *Client) digests() pdu.Digests {
	return pdu.Digests{Header: c.full && c.Params.HeaderDigest, Data: c.full && c.Params.DataDigest}
}

// Send sends a PDU; a connection that is gone fails the test.
func (c *Client) Send(h pdu.BHS, data []byte) {
	c.tb.Helper()
	if err := c.TrySend(h, data); err != nil {
		c.tb.Fatalf("iscsitest: send opcode %#02x: %v", byte(h.Opcode()), err)
	}
}

// TrySend sends a PDU.
func (c *Client) TrySend(h pdu.BHS, data []byte) error { return c.SendRaw(c.Encode(h, data)) }

// SendRaw sends bytes as they are.
func (c *Client) SendRaw(b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(Timeout)); err != nil {
		return err
	}
	_, err := c.Write(b)
	return err
}

// Recv takes the next PDU, whatever it is; none within Timeout fails the test.
func (c *Client) Recv() pdu.PDU {
	c.tb.Helper()
	p, err := c.TryRecv(Timeout)
	if err != nil {
		c.tb.Fatalf("iscsitest: receive: %v", err)
	}
	return p
}

// TryRecv takes the next PDU. Its memory is the caller's.
func (c *Client) TryRecv(timeout time.Duration) (pdu.PDU, error) {
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return pdu.PDU{}, err
	}
	p, err := c.reader.Next()
	if err != nil {
		return p, err
	}
	if p.Damaged {
		return p, fmt.Errorf("opcode %#02x has a wrong data digest", byte(p.BHS.Opcode()))
	}
	p.AHS, p.Data = slices.Clone(p.AHS), slices.Clone(p.Data)
	return p, c.check(&p)
}

// Expect takes the next PDU, which must have that opcode.
func (c *Client) Expect(op pdu.Opcode) pdu.PDU {
	c.tb.Helper()
	p := c.Recv()
	if p.BHS.Opcode() != op {
		c.tb.Fatalf("iscsitest: got opcode %#02x, want %#02x: % x", byte(p.BHS.Opcode()), byte(op), p.BHS[:])
	}
	return p
}

// ExpectClosed takes what still comes until the target closes the connection,
// and returns it.
func (c *Client) ExpectClosed() []pdu.PDU {
	c.tb.Helper()
	var last []pdu.PDU
	for {
		p, err := c.TryRecv(Timeout)
		if Closed(err) {
			return last
		}
		if err != nil {
			c.tb.Fatalf("iscsitest: want the connection closed, got %v", err)
		}
		last = append(last, p)
	}
}

// Closed says whether an error means that the peer closed the connection.
func Closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe)
}

// Alive sends a NOP-Out and waits for the answer: the session works.
func (c *Client) Alive() {
	c.tb.Helper()
	if err := c.Ping(Timeout); err != nil {
		c.tb.Fatalf("iscsitest: ping: %v", err)
	}
}

// Ping sends an immediate NOP-Out and waits for its answer. Other PDUs that
// come go to their commands.
func (c *Client) Ping(timeout time.Duration) error {
	itt := c.ITT()
	h := pdu.NopOut{Immediate: true, ITT: itt, TTT: pdu.NoTag, CmdSN: c.CmdSN, ExpStatSN: c.ExpStatSN}.Header()
	if err := c.TrySend(h, []byte("are you there")); err != nil {
		return err
	}
	for {
		p, err := c.TryRecv(timeout)
		switch {
		case err != nil:
			return err
		case p.BHS.Opcode() != pdu.OpNopIn || p.BHS.ITT() != itt:
			if err := c.dispatch(p); err != nil {
				return err
			}
		case string(p.Data) != "are you there":
			return fmt.Errorf("NOP-In with data %q", p.Data)
		default:
			return nil
		}
	}
}

// ITT returns a task tag that this client has not used.
func (c *Client) ITT() uint32 {
	c.nextITT++
	return c.nextITT
}

// takesStatSN says which PDUs advance StatSN (RFC 7143 section 4.2.2.2).
func takesStatSN(p *pdu.PDU) bool {
	switch p.BHS.Opcode() {
	case pdu.OpR2T:
		return false
	case pdu.OpDataIn:
		return pdu.ParseDataIn(&p.BHS).HasStatus
	case pdu.OpNopIn:
		return p.BHS.ITT() != pdu.NoTag
	}
	return true
}

// check holds a PDU to the numbering of a session.
func (c *Client) check(p *pdu.PDU) error {
	if !c.full {
		return nil
	}
	if c.Resent {
		return nil
	}
	if takesStatSN(p) {
		if got := p.BHS.StatSN(); got != c.ExpStatSN {
			return fmt.Errorf("opcode %#02x has StatSN %d, want %d", byte(p.BHS.Opcode()), got, c.ExpStatSN)
		}
		c.ExpStatSN++
	} else if err := c.checkBorrowed(p); err != nil {
		return err
	}
	exp, most := p.BHS.Window()
	if int32(exp-c.ExpCmdSN) < 0 || int32(most-c.MaxCmdSN) < 0 {
		return fmt.Errorf("window went back from %d..%d to %d..%d", c.ExpCmdSN, c.MaxCmdSN, exp, most)
	}
	if int32(exp-c.CmdSN) > 0 {
		return fmt.Errorf("ExpCmdSN %d, but CmdSN %d was not sent", exp, c.CmdSN)
	}
	c.ExpCmdSN, c.MaxCmdSN = exp, most
	if n := uint32(len(p.Data)); n > c.Params.MaxRecvDataSegmentLength {
		return fmt.Errorf("data segment of %d bytes, at most %d declared", n, c.Params.MaxRecvDataSegmentLength)
	}
	return nil
}

// checkBorrowed holds a PDU that does not advance StatSN to what its field has: the
// next one, or nothing in a Data-In without status.
func (c *Client) checkBorrowed(p *pdu.PDU) error {
	want := c.ExpStatSN
	if p.BHS.Opcode() == pdu.OpDataIn {
		want = 0
	}
	if got := p.BHS.StatSN(); got != want {
		return fmt.Errorf("opcode %#02x has StatSN %d, want %d", byte(p.BHS.Opcode()), got, want)
	}
	return nil
}
