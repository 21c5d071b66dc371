package isns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	// maxPDU is the longest payload of a PDU in bytes: a multiple of four in
	// the sixteen bits of its length.
	maxPDU = 1<<16 - 4
	// maxAnswer bounds an answer of the server in bytes, over all its PDUs:
	// some ten thousand initiators.
	maxAnswer = 1 << 20
	// maxInquiry bounds an ESI, and an SCN, in bytes.
	maxInquiry = 1 << 16
	// maxPDUs bounds the PDUs of a message; empty ones would cost nothing of
	// its bytes.
	maxPDUs = 1 << 10
)

// message is an iSNSP message, put together of its PDUs (RFC 4171 section 5.2).
type message struct {
	function    function
	replace     bool
	transaction uint16
	payload     []byte
}

// append appends the message's PDUs as a client sends them.
func (m message) append(b []byte) []byte {
	rest := m.payload
	fl := firstPDU
	for sequence := uint16(0); ; sequence++ {
		part := rest[:min(len(rest), maxPDU)]
		rest = rest[len(part):]
		fl |= fromClient
		if m.replace {
			fl |= replace
		}
		if len(rest) == 0 {
			fl |= lastPDU
		}
		b = appendHeader(b, m.function, len(part), fl, m.transaction, sequence)
		b = append(b, part...)
		if len(rest) == 0 {
			return b
		}
		fl = 0
	}
}

// messageReader puts a byte stream's PDUs together to messages.
type messageReader struct {
	src io.Reader
	max int // bytes of a message's payload
}

// next reads the next message. io.EOF means that the stream ended between two.
// Any error is final. Memory grows with what has arrived, not with what a header
// claims.
func (r messageReader) next() (message, error) {
	var m message
	var payload bytes.Buffer
	for sequence := 0; ; sequence++ {
		var h header
		if _, err := io.ReadFull(r.src, h[:]); err != nil {
			if errors.Is(err, io.EOF) && sequence > 0 {
				err = io.ErrUnexpectedEOF
			}
			return message{}, err
		}
		if err := r.check(&m, &h, sequence, payload.Len()); err != nil {
			return message{}, err
		}
		if _, err := io.CopyN(&payload, r.src, int64(h.length())); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return message{}, err
		}
		if h.flags()&lastPDU != 0 {
			m.payload = payload.Bytes()
			return m, nil
		}
	}
}

// check judges the PDU with this sequence number; m is filled in by the first.
func (r messageReader) check(m *message, h *header, sequence, have int) error {
	if h.version() != version {
		return fmt.Errorf("%w: version %d, want %d", errFormat, h.version(), version)
	}
	if h.length()%4 != 0 {
		return fmt.Errorf("%w: PDU of %d bytes, which is no multiple of 4", errFormat, h.length())
	}
	if have+h.length() > r.max || sequence == maxPDUs {
		return fmt.Errorf("%w: longer than %d bytes or %d PDUs", errFormat, r.max, maxPDUs)
	}
	first := h.flags()&firstPDU != 0
	if first != (sequence == 0) || int(h.sequence()) != sequence {
		return fmt.Errorf("%w: PDU %d of a message where number %d was due", errFormat, h.sequence(), sequence)
	}
	if first {
		m.function, m.transaction, m.replace = h.function(), h.transaction(), h.flags()&replace != 0
		return nil
	}
	if h.function() != m.function || h.transaction() != m.transaction {
		return fmt.Errorf("%w: transaction %d within transaction %d", errFormat, h.transaction(), m.transaction)
	}
	return nil
}

// request is the payload of a client's request (RFC 4171 section 5.6).
func request(source string, key, operating attrs) []byte {
	b := text(tagNodeName, source).append(nil)
	b = key.append(b)
	b = none(tagDelimiter).append(b)
	return operating.append(b)
}

// answer is the payload of a response: a status and attributes (section 5.7).
func answer(s Status, l attrs) []byte { return l.append(be.AppendUint32(nil, uint32(s))) }

// parseAnswer returns a response's operating attributes, or its status as the
// error.
func parseAnswer(payload []byte) (attrs, error) {
	if len(payload) < 4 {
		return nil, fmt.Errorf("%w: response of %d bytes has no status", errFormat, len(payload))
	}
	if s := Status(be.Uint32(payload)); s != Success {
		return nil, s
	}
	l, err := parseAttrs(payload[4:])
	if err != nil {
		return nil, err
	}
	return l.operating(), nil
}
