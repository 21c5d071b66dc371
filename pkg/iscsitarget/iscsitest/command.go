package iscsitest

import (
	"fmt"
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// Command is a SCSI command to run. Of Out, Immediate bytes go in the command's
// PDU, Unsolicited more behind it unasked, the rest as R2Ts ask; each is made
// what was negotiated unless Reckless is set.
type Command struct {
	LUN [8]byte
	CDB []byte
	// In is the Data-In expected, in bytes.
	In  uint32
	Out []byte
	// Expect overrides the expected data transfer length of a write, which
	// is len(Out) otherwise.
	Expect      *uint32
	Immediate   int
	Unsolicited int
	// Attr is the task attribute, SIMPLE where it is 0.
	Attr uint8
	// Urgent delivers the command immediately (the I bit).
	Urgent   bool
	Reckless bool
	// CmdSN is the command's number, where it is not the next.
	CmdSN *uint32
	// Hold leaves R2Ts unanswered; they are in the Result.
	Hold bool
}

// Most sends as much as was negotiated in the PDU and behind it.
const Most = 1 << 30

// Result is how a command ended.
type Result struct {
	Done     bool
	Status   byte
	Sense    []byte
	Data     []byte
	Residual pdu.Residual
	// DataIns counts the Data-In PDUs.
	DataIns int
	R2Ts    []pdu.R2T
}

// SenseCode is the sense data, of either format, as key<<16|ASC<<8|ASCQ.
func (r Result) SenseCode() int {
	switch s := r.Sense; {
	case len(s) >= 14 && s[0]&0x7f == 0x70:
		return int(s[2]&15)<<16 | int(s[12])<<8 | int(s[13])
	case len(s) >= 4 && s[0]&0x7f == 0x72:
		return int(s[1]&15)<<16 | int(s[2])<<8 | int(s[3])
	}
	return 0
}

func (r Result) String() string {
	return fmt.Sprintf("status %#02x sense %06x residual %+v, %d bytes in %d Data-Ins, %d R2Ts",
		r.Status, r.SenseCode(), r.Residual, len(r.Data), r.DataIns, len(r.R2Ts))
}

// exchange is a command under way.
type exchange struct {
	Command
	itt    uint32
	cmdSN  uint32
	result Result
	dataSN uint32 // of the next Data-In
	burst  uint32 // bytes of the Data-In sequence under way
	r2tEnd uint32 // where the next R2T must begin
	served int    // R2Ts that were answered
	moved  bool   // the next R2T may ask for what was asked for before
}

// TakeOver moves a command to another connection of the session, over which TASK
// REASSIGN is to be sent: it returns the next DataSN or R2TSN.
func (c *Client) TakeOver(from *Client, itt uint32) (expDataSN uint32) {
	x := from.running[itt]
	delete(from.running, itt)
	c.running[itt] = x
	x.moved, x.served, x.burst = true, len(x.result.R2Ts), 0
	if x.Out != nil {
		return uint32(len(x.result.R2Ts))
	}
	return x.dataSN
}

// Again sends a command of a connection that was lost once more, as it was: it never
// came.
func (c *Client) Again(itt uint32) {
	c.tb.Helper()
	x := c.running[itt]
	if err := c.send(x, x.cmdSN); err != nil {
		c.tb.Fatalf("iscsitest: command %#x: %v", itt, err)
	}
}

// Until takes PDUs until one with that opcode comes, and gives the others to their
// commands.
func (c *Client) Until(op pdu.Opcode) pdu.PDU {
	c.tb.Helper()
	for {
		p := c.Recv()
		if p.BHS.Opcode() == op {
			return p
		}
		if err := c.dispatch(p); err != nil {
			c.tb.Fatalf("iscsitest: %v", err)
		}
	}
}

// Step takes one PDU and gives it to its command.
func (c *Client) Step() error {
	p, err := c.TryRecv(Timeout)
	if err != nil {
		return err
	}
	return c.dispatch(p)
}

// Ended says whether a command has its status.
func (c *Client) Ended(itt uint32) bool { return c.running[itt].result.Done }

// SentAs is the number of a command that has not ended.
func (c *Client) SentAs(itt uint32) (cmdSN uint32) { return c.running[itt].cmdSN }

// Running are the tags of the commands that have not ended.
func (c *Client) Running() (tags []uint32) {
	for itt, x := range c.running {
		if !x.result.Done {
			tags = append(tags, itt)
		}
	}
	slices.Sort(tags)
	return tags
}

// Do runs a command to its end.
func (c *Client) Do(cmd Command) Result {
	c.tb.Helper()
	return c.Wait(c.Start(cmd))
}

// Start sends a command with its unasked data and returns its tag.
func (c *Client) Start(cmd Command) uint32 {
	c.tb.Helper()
	itt := c.ITT()
	if err := c.start(cmd, itt); err != nil {
		c.tb.Fatalf("iscsitest: command % x: %v", cmd.CDB, err)
	}
	return itt
}

// Header is the header of a command with the client's next number.
func (c *Client) Header(cmd Command, itt uint32) pdu.SCSICommand {
	req := pdu.SCSICommand{
		Immediate: cmd.Urgent, Final: true, Attr: 1, LUN: cmd.LUN, ITT: itt, CmdSN: c.CmdSN, ExpStatSN: c.ExpStatSN,
		Read: cmd.In > 0, ExpectedLength: cmd.In,
	}
	if cmd.CmdSN != nil {
		req.CmdSN = *cmd.CmdSN
	}
	if cmd.Attr != 0 {
		req.Attr = cmd.Attr
	}
	if cmd.Out != nil || cmd.Expect != nil {
		req.Write, req.ExpectedLength = true, uint32(len(cmd.Out))
		if cmd.Expect != nil {
			req.ExpectedLength = *cmd.Expect
		}
	}
	copy(req.CDB[:], cmd.CDB)
	return req
}

func (c *Client) start(cmd Command, itt uint32) error {
	x := &exchange{Command: cmd, itt: itt, cmdSN: c.CmdSN}
	c.running[itt] = x
	if cmd.CmdSN != nil {
		x.cmdSN = *cmd.CmdSN
	} else if !cmd.Urgent {
		c.CmdSN++
	}
	return c.send(x, x.cmdSN)
}

// send sends a command with what is to come unasked.
func (c *Client) send(x *exchange, cmdSN uint32) error {
	req := c.Header(x.Command, x.itt)
	req.CmdSN = cmdSN
	immediate, unsolicited := c.unasked(x.Command)
	req.Final = unsolicited == immediate
	x.r2tEnd, x.moved = uint32(unsolicited), false
	if err := c.TrySend(req.Header(), x.Out[:immediate]); err != nil {
		return err
	}
	return c.sendData(x.itt, pdu.NoTag, x.Out[:unsolicited], immediate)
}

// unasked is up to where Out goes in the command's PDU and behind it.
func (c *Client) unasked(cmd Command) (immediate, unsolicited int) {
	immediate = min(cmd.Immediate, len(cmd.Out))
	unsolicited = min(immediate+cmd.Unsolicited, len(cmd.Out))
	if cmd.Reckless {
		return immediate, unsolicited
	}
	p := &c.Params
	if !p.ImmediateData {
		immediate = 0
	}
	immediate = min(immediate, int(p.FirstBurstLength), int(p.MaxSendDataSegmentLength))
	unsolicited = min(max(immediate, unsolicited), int(p.FirstBurstLength))
	if unsolicited > immediate && len(cmd.Out) > int(p.FirstBurstLength) {
		unsolicited = int(p.FirstBurstLength) // all of it, or none (RFC 7143 section 11.4.7.2)
	}
	if p.InitialR2T {
		unsolicited = immediate
	}
	return immediate, unsolicited
}

// sendData sends data[from:] as one sequence of Data-Outs; nothing sends none.
func (c *Client) sendData(itt, ttt uint32, data []byte, from int) error {
	for sn := uint32(0); from < len(data); sn++ {
		n := min(len(data)-from, int(c.Params.MaxSendDataSegmentLength))
		h := pdu.DataOut{
			Final: from+n == len(data), ITT: itt, TTT: ttt, ExpStatSN: c.ExpStatSN, DataSN: sn, BufferOffset: uint32(from),
		}
		if err := c.TrySend(h.Header(), data[from:from+n]); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// Wait takes PDUs until the command with that tag has ended.
func (c *Client) Wait(itt uint32) Result {
	c.tb.Helper()
	r, err := c.TryWait(itt)
	if err != nil {
		c.tb.Fatalf("iscsitest: command %#x: %v", itt, err)
	}
	return r
}

// TryDo runs a command to its end.
func (c *Client) TryDo(cmd Command) (Result, error) {
	itt := c.ITT()
	if err := c.start(cmd, itt); err != nil {
		return Result{}, err
	}
	return c.TryWait(itt)
}

// TryWait takes PDUs until the command with that tag has ended.
func (c *Client) TryWait(itt uint32) (Result, error) {
	x := c.running[itt]
	if x == nil {
		return Result{}, fmt.Errorf("no command with tag %#x", itt)
	}
	for !x.result.Done {
		p, err := c.TryRecv(Timeout)
		if err != nil {
			return x.result, err
		}
		if err := c.dispatch(p); err != nil {
			return x.result, err
		}
	}
	delete(c.running, itt)
	return x.result, nil
}

// WaitR2T takes PDUs until a held command has been asked for data.
func (c *Client) WaitR2T(itt uint32) pdu.R2T {
	c.tb.Helper()
	x := c.running[itt]
	for n := len(x.result.R2Ts); len(x.result.R2Ts) == n && !x.result.Done; {
		if err := c.dispatch(c.Recv()); err != nil {
			c.tb.Fatalf("iscsitest: %v", err)
		}
	}
	if x.result.Done {
		c.tb.Fatalf("iscsitest: command %#x ended without an R2T: %v", itt, x.result)
	}
	return x.result.R2Ts[len(x.result.R2Ts)-1]
}

// Serve answers an R2T of a held command.
func (c *Client) Serve(r pdu.R2T) {
	c.tb.Helper()
	if err := c.serve(c.running[r.ITT], r); err != nil {
		c.tb.Fatalf("iscsitest: %v", err)
	}
}

// Dispatch gives a PDU to the command that it is for.
func (c *Client) dispatch(p pdu.PDU) error {
	x := c.running[p.BHS.ITT()]
	switch op := p.BHS.Opcode(); {
	case op == pdu.OpNopIn && p.BHS.ITT() == pdu.NoTag && !c.MutePings:
		in := pdu.ParseNopIn(&p.BHS)
		return c.TrySend(pdu.NopOut{Immediate: true, ITT: pdu.NoTag, TTT: in.TTT, LUN: in.LUN, CmdSN: c.CmdSN, ExpStatSN: c.ExpStatSN}.Header(), nil)
	case x == nil || x.result.Done:
		c.Unasked = append(c.Unasked, p)
		return nil
	case op == pdu.OpDataIn:
		return c.dataIn(x, p)
	case op == pdu.OpR2T:
		return c.r2t(x, pdu.ParseR2T(&p.BHS))
	case op == pdu.OpSCSIResponse:
		return x.respond(p)
	}
	return fmt.Errorf("opcode %#02x for command %#x", byte(p.BHS.Opcode()), x.itt)
}

// dataIn holds a Data-In to RFC 7143 section 11.7.
func (c *Client) dataIn(x *exchange, p pdu.PDU) error {
	in := pdu.ParseDataIn(&p.BHS)
	got := uint32(len(x.result.Data))
	x.burst += uint32(len(p.Data))
	switch {
	case in.DataSN != x.dataSN:
		return fmt.Errorf("DataSN %d, want %d", in.DataSN, x.dataSN)
	case in.BufferOffset != got:
		return fmt.Errorf("Data-In at offset %d, want %d", in.BufferOffset, got)
	case got+uint32(len(p.Data)) > x.In:
		return fmt.Errorf("more than the %d bytes expected", x.In)
	case x.burst > c.Params.MaxBurstLength && !x.moved:
		return fmt.Errorf("sequence of %d bytes, MaxBurstLength is %d", x.burst, c.Params.MaxBurstLength)
	case in.HasStatus && !in.Final:
		return fmt.Errorf("status without the F bit")
	}
	if in.Final {
		x.burst = 0
	}
	if in.Acknowledge && !c.MuteACKs {
		ack := pdu.SNACK{Type: pdu.SNACKDataACK, LUN: in.LUN, ITT: pdu.NoTag, TTT: in.TTT, ExpStatSN: c.ExpStatSN, BegRun: in.DataSN + 1}
		if err := c.TrySend(ack.Header(), nil); err != nil {
			return err
		}
	}
	x.dataSN++
	x.result.DataIns++
	x.result.Data = append(x.result.Data, p.Data...)
	if in.HasStatus {
		x.result.Done, x.result.Status, x.result.Residual = true, in.Status, in.Residual
	}
	return nil
}

// r2t holds an R2T to RFC 7143 section 11.8.
func (c *Client) r2t(x *exchange, r pdu.R2T) error {
	switch {
	case int(r.R2TSN) != len(x.result.R2Ts):
		return fmt.Errorf("R2TSN %d, want %d", r.R2TSN, len(x.result.R2Ts))
	case r.Length == 0 || r.Length > c.Params.MaxBurstLength:
		return fmt.Errorf("R2T for %d bytes, MaxBurstLength is %d", r.Length, c.Params.MaxBurstLength)
	case r.Offset != x.r2tEnd && !(x.moved && r.Offset < x.r2tEnd):
		return fmt.Errorf("R2T from offset %d, want %d", r.Offset, x.r2tEnd)
	case len(x.result.R2Ts)-x.served >= int(max(c.Params.MaxOutstandingR2T, 1)):
		return fmt.Errorf("%d R2Ts at once, MaxOutstandingR2T is %d", len(x.result.R2Ts)-x.served+1, c.Params.MaxOutstandingR2T)
	case r.TTT == pdu.NoTag:
		return fmt.Errorf("R2T with the reserved tag")
	}
	x.r2tEnd, x.moved = r.Offset+r.Length, false
	x.result.R2Ts = append(x.result.R2Ts, r)
	if x.Hold {
		return nil
	}
	return c.serve(x, r)
}

func (c *Client) serve(x *exchange, r pdu.R2T) error {
	if int(r.Offset+r.Length) > len(x.Out) {
		return fmt.Errorf("R2T for %d bytes from %d of %d", r.Length, r.Offset, len(x.Out))
	}
	x.served++
	return c.sendData(x.itt, r.TTT, x.Out[:r.Offset+r.Length], int(r.Offset))
}

func (x *exchange) respond(p pdu.PDU) error {
	resp := pdu.ParseSCSIResponse(&p.BHS)
	x.result.Done, x.result.Status, x.result.Residual = true, resp.Status, resp.Residual
	if resp.Response != 0 {
		return fmt.Errorf("iSCSI response %#02x", resp.Response)
	}
	if sent := x.dataSN + uint32(len(x.result.R2Ts)); resp.ExpDataSN != sent {
		return fmt.Errorf("ExpDataSN %d after %d Data-Ins and R2Ts", resp.ExpDataSN, sent)
	}
	if len(p.Data) < 2 {
		return nil
	}
	n := int(p.Data[0])<<8 | int(p.Data[1])
	if n > len(p.Data)-2 {
		return fmt.Errorf("SenseLength %d in a segment of %d bytes", n, len(p.Data))
	}
	x.result.Sense = p.Data[2 : 2+n]
	return nil
}
