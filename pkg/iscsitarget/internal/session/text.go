package session

import (
	"fmt"
	"strconv"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

const (
	// maxTextRequest bounds what a chain of requests with the C bit may add
	// up to, and maxTextAnswer what the keys of an exchange are answered
	// with, in bytes: an answer cannot be amplified. SendTargets is beside
	// it, since its answer is as long as there are targets.
	maxTextRequest = 16 << 10
	maxTextAnswer  = 8 << 10
	// maxTextRequests bounds the requests of one exchange that bring text,
	// or the promise of it: a chain of empty ones ends.
	maxTextRequests = 32
)

// exchange is a text exchange under way (RFC 7143 sections 6.4 and 11.10). A
// connection has one at a time.
type exchange struct {
	text.Exchange
	itt       uint32
	immediate bool
	ttt       uint32 // what the next request must have, once we answered
	requests  int
	request   []byte // of a chain with the C bit
	answered  int    // bytes of answers so far, without SendTargets
	declares  *declaration
	left      []byte // of the answer
}

// textRequest answers a Text Request (RFC 7143 section 11.10). One without a
// Target Transfer Tag begins an exchange, whatever was under way; the others
// must belong to it.
func (c *Connection) textRequest(p *pdu.PDU) {
	req := pdu.ParseTextRequest(&p.BHS)
	if trace := c.s.cfg.TraceText; trace != nil {
		expected, _ := c.s.window.advertised()
		trace(Traced{true, p.BHS, p.AHS, p.Data, expected})
	}
	c.settle(p)
	if c.textBusy.Load() {
		c.reject(pdu.RejectProtocolError, p) // the last one has no answer yet
		return
	}
	if req.TTT == pdu.NoTag {
		c.text = &exchange{itt: req.ITT, immediate: req.Immediate}
	}
	if reason := c.takeText(req, p.Data); reason != 0 {
		c.text = nil
		c.reject(reason, p)
		return
	}
	c.sendText(req)
}

// takeText takes in what a Text Request says; other than 0 is why it is
// rejected, and with it the exchange.
func (c *Connection) takeText(req pdu.TextRequest, data []byte) (reason byte) {
	x := c.text
	switch {
	case req.ITT == pdu.NoTag || x == nil || req.ITT != x.itt || req.TTT != pdu.NoTag && req.TTT != x.ttt:
		return pdu.RejectInvalidField
	case req.Final && req.Continue || req.Immediate != x.immediate:
		return pdu.RejectProtocolError
	case len(x.left) > 0 && (len(data) > 0 || req.Continue):
		return pdu.RejectProtocolError // nothing new before the answer is out
	case len(x.left) > 0:
		return 0
	}
	if x.requests++; x.requests > maxTextRequests || len(x.request)+len(data) > maxTextRequest {
		return pdu.RejectLongOperation // no memory for it
	}
	x.request = append(x.request, data...)
	if req.Continue {
		return 0
	}
	pairs, err := text.Parse(x.request)
	x.request = nil
	if err != nil || c.s.answer(x, pairs) != nil {
		return pdu.RejectProtocolError
	}
	if d := c.declares.Load(); d != nil && x.declares == nil {
		x.declares = d
		x.left = text.Append(x.left, "MaxRecvDataSegmentLength", strconv.Itoa(d.maxData))
		c.reader.SetMaxData(max(d.maxData, int(c.Params.MaxRecvDataSegmentLength)))
	}
	return 0
}

// answer answers the keys of a Text Request in their order. A discovery session
// takes those with SendTargets alone (RFC 7143 section 4.3).
func (s *Session) answer(x *exchange, pairs []text.Pair) error {
	if _, ok := text.Get(pairs, "SendTargets"); s.Discovery && !ok {
		return fmt.Errorf("%w: no SendTargets in a discovery session", ErrProtocol)
	}
	for _, p := range pairs {
		if err := x.Once(p.Key); err != nil {
			return err
		}
		if p.Key == "SendTargets" {
			x.left = append(x.left, text.Encode(s.sendTargets(p.Value))...)
			continue
		}
		v := text.Reject
		if !s.Discovery {
			v = x.Answer(p)
		}
		if v == "" {
			continue
		}
		before := len(x.left)
		x.left = text.Append(x.left, p.Key, v)
		if x.answered += len(x.left) - before; x.answered > maxTextAnswer {
			return fmt.Errorf("%w: more than %d bytes of answers", ErrProtocol, maxTextAnswer)
		}
	}
	return nil
}

// sendTargets: All is for discovery sessions alone; an empty name means the
// session's own target (RFC 7143 appendix C).
func (s *Session) sendTargets(name string) []text.Pair {
	all := name == "All"
	switch {
	case all && !s.Discovery, name == "" && s.Discovery:
		return []text.Pair{{Key: "SendTargets", Value: text.Reject}}
	case all:
		name = ""
	case name == "":
		name = s.Target
	}
	pairs, ok := s.host.SendTargets(name)
	if !ok {
		return []text.Pair{{Key: "SendTargets", Value: text.Reject}}
	}
	return pairs
}

// sendText sends as much of the answer as fits into a PDU (RFC 7143 section
// 11.11). The exchange ends with the last of it, where the initiator has no more
// to say either; until then each answer has a tag of its own.
func (c *Connection) sendText(req pdu.TextRequest) {
	x := c.text
	n := min(len(x.left), int(c.maxSend.Load()))
	part := x.left[:n]
	x.left = x.left[n:]
	h := pdu.TextResponse{Final: req.Final && len(x.left) == 0, Continue: len(x.left) > 0, LUN: req.LUN, ITT: req.ITT, TTT: pdu.NoTag}
	if trace := c.s.cfg.TraceText; trace != nil {
		defer func() { trace(Traced{BHS: h.Header(), Data: part}) }()
	}
	if h.Final {
		c.concludeText(x, h, part)
		return
	}
	c.s.mu.Lock()
	x.ttt = c.s.newTransferTag()
	c.s.mu.Unlock()
	h.TTT = x.ttt
	c.outbox.postData(h.Header(), part, takesStatSN)
}

// concludeText ends an exchange with its last answer: from then on what it
// settled holds. Nothing longer than that may follow the answer, so where it is
// less than before, the answer waits for the reads that are under way.
func (c *Connection) concludeText(x *exchange, h pdu.TextResponse, part []byte) {
	c.text = nil
	if d := x.declares; d != nil && c.declares.CompareAndSwap(d, nil) {
		defer close(d.said)
	}
	next := c.s.cfg.mostSent(x.MaxRecvDataSegmentLength)
	if next == 0 || next >= c.maxSend.Load() {
		c.outbox.postData(h.Header(), part, takesStatSN)
		if next != 0 {
			c.maxSend.Store(next)
		}
		return
	}
	c.maxSend.Store(next)
	c.textBusy.Store(true)
	c.behindReads(func() {
		c.textBusy.Store(false)
		c.outbox.postData(h.Header(), part, takesStatSN)
	})
}

// behindReads runs then when the commands of the connection that send data now have
// ended.
func (c *Connection) behindReads(then func()) {
	a := &abortion{then: then}
	a.left.Add(1)
	c.s.join(a, func(t *task) bool { return t.expectIn > 0 && c.allegiant(t) })
	a.one()
}

// String names the session in logs and errors.
func (s *Session) String() string {
	return fmt.Sprintf("session %d of %s", s.TSIH, s.Initiator)
}
