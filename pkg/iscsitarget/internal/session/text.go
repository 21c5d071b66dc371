package session

import (
	"fmt"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// textTag is the Target Transfer Tag of a text answer that goes on: a
// connection has one text exchange at a time.
const textTag = 0x54455854

// textRequest answers a Text Request (RFC 7143 section 11.10): SendTargets, and
// the next part of an answer that was too long for one PDU. Requests in
// several parts are not taken: no key of the full-feature phase needs them.
func (s *Session) textRequest(p *pdu.PDU) error {
	req := pdu.ParseTextRequest(&p.BHS)
	s.settle(p)
	switch {
	case req.TTT == textTag && len(s.textLeft) > 0 && len(p.Data) == 0:
		s.textAnswer(req)
		return nil
	case req.TTT != pdu.NoTag || req.Continue:
		s.textLeft = nil
		return s.reject(pdu.RejectProtocolError, p)
	}
	pairs, err := text.Parse(p.Data)
	if err != nil {
		return s.reject(pdu.RejectProtocolError, p)
	}
	s.textLeft = text.Encode(s.answer(pairs))
	s.textAnswer(req)
	return nil
}

// answer answers the keys of a Text Request in their order.
func (s *Session) answer(pairs []text.Pair) (out []text.Pair) {
	for _, p := range pairs {
		switch p.Key {
		case "SendTargets":
			out = append(out, s.sendTargets(p.Value)...)
		case "InitiatorAlias":
		default:
			out = append(out, text.Pair{Key: p.Key, Value: s.answerOther(p)})
		}
	}
	return out
}

// answerOther: nothing else can be negotiated in full-feature phase. A known
// key is refused, an unknown one not understood.
func (s *Session) answerOther(p text.Pair) string {
	v, err := text.NewNegotiator(s.Params, s.Discovery).Answer(p)
	if err == nil && v == text.NotUnderstood {
		return v
	}
	return text.Reject
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

// textAnswer sends as much of the answer as fits into a PDU.
func (s *Session) textAnswer(req pdu.TextRequest) {
	n := min(len(s.textLeft), int(s.Params.MaxSendDataSegmentLength))
	part := s.textLeft[:n]
	s.textLeft = s.textLeft[n:]
	h := pdu.TextResponse{Final: len(s.textLeft) == 0, Continue: len(s.textLeft) > 0, LUN: req.LUN, ITT: req.ITT, TTT: pdu.NoTag}
	if h.Continue {
		h.TTT = textTag
	}
	s.outbox.send(h.Header(), part, nil, takesStatSN)
}

// String names the session in logs and errors.
func (s *Session) String() string {
	return fmt.Sprintf("session %d of %s", s.TSIH, s.Initiator)
}
