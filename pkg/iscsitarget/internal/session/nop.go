package session

import (
	"slices"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// pingTag is the Target Transfer Tag of our own NOP-In: there is one at a time.
const pingTag = 0x50494e47

// nopOut answers a ping (RFC 7143 section 11.18) with its own data, or takes
// the answer to ours.
func (c *Connection) nopOut(p *pdu.PDU) {
	req := pdu.ParseNopOut(&p.BHS)
	if req.ITT == pdu.NoTag {
		return // that it came is all there was to know
	}
	c.settle(p)
	data := p.Data[:min(len(p.Data), int(c.maxSend.Load()))]
	c.outbox.postData(pdu.NopIn{LUN: req.LUN, ITT: req.ITT, TTT: pdu.NoTag}.Header(), slices.Clone(data), takesStatSN)
}

// ping asks the initiator for a sign of life (RFC 7143 section 11.19).
func (c *Connection) ping() {
	c.pinged = true
	c.outbox.send(pdu.NopIn{ITT: pdu.NoTag, TTT: pingTag}.Header(), nil, nil, nextStatSN)
}
