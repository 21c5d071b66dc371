package pdu

import (
	"errors"
	"fmt"
	"io"
)

// ErrTooLong is a PDU longer than this end declared that it takes: the stream
// cannot be trusted any further.
var ErrTooLong = errors.New("PDU is too long")

// initialBuffer holds a login PDU; most connections of a hostile peer never
// need more.
const initialBuffer = 4 << 10

// PDU is one received PDU. AHS and Data lie in the Reader's buffer: they are
// valid until its next call.
type PDU struct {
	BHS  BHS
	AHS  []byte
	Data []byte
}

// Reader cuts a byte stream into PDUs. It reads in pieces as large as its
// buffer, which grows with what has arrived, never with what a header claims.
type Reader struct {
	src     io.Reader
	buf     []byte
	at, end int // what is buffered is buf[at:end]
	maxData int
	maxAHS  int
}

// NewReader reads PDUs with data segments of up to maxData bytes and
// additional headers of up to maxAHS bytes.
func NewReader(src io.Reader, maxData, maxAHS int) *Reader {
	return &Reader{src: src, buf: make([]byte, initialBuffer), maxData: maxData, maxAHS: maxAHS}
}

// SetMaxData changes the longest data segment taken, in bytes.
func (r *Reader) SetMaxData(n int) { r.maxData = n }

// Buffered says whether a whole PDU is in memory, so that Next would not wait.
func (r *Reader) Buffered() bool {
	n, err := r.length()
	return err != nil || n > 0 && r.end-r.at >= n
}

// Next reads the next PDU. After an error that is a timeout, Next may be called
// again and goes on where it stopped; any other error is final. io.EOF means
// that the stream ended between two PDUs.
func (r *Reader) Next() (PDU, error) {
	for {
		n, err := r.length()
		if err != nil {
			return PDU{}, err
		}
		if n > 0 && r.end-r.at >= n {
			return r.cut(n), nil
		}
		if err := r.fill(n); err != nil {
			return PDU{}, err
		}
	}
}

// length is the length of the PDU at the buffer's start, padding included, or 0
// while its header has not arrived.
func (r *Reader) length() (int, error) {
	if r.end-r.at < BHSLen {
		return 0, nil
	}
	h := (*BHS)(r.buf[r.at:])
	if h.DataLen() > r.maxData {
		return 0, fmt.Errorf("%w: data segment of %d bytes, at most %d taken", ErrTooLong, h.DataLen(), r.maxData)
	}
	if h.AHSLen() > r.maxAHS {
		return 0, fmt.Errorf("%w: additional headers of %d bytes, at most %d taken", ErrTooLong, h.AHSLen(), r.maxAHS)
	}
	return BHSLen + h.AHSLen() + h.DataLen() + Pad(h.DataLen()), nil
}

func (r *Reader) cut(n int) (p PDU) {
	b := r.buf[r.at : r.at+n]
	r.at += n
	p.BHS = BHS(b)
	ahs := BHSLen + p.BHS.AHSLen()
	p.AHS = b[BHSLen:ahs:ahs]
	p.Data = b[ahs : ahs+p.BHS.DataLen() : ahs+p.BHS.DataLen()]
	return p
}

// fill reads once; want is the length of the PDU at hand, if known.
func (r *Reader) fill(want int) error {
	if r.at > 0 && (r.at == r.end || len(r.buf)-r.at < max(want, BHSLen)) {
		r.end = copy(r.buf, r.buf[r.at:r.end])
		r.at = 0
	}
	if r.end == len(r.buf) {
		r.grow()
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	if err == io.EOF && r.end > r.at {
		return io.ErrUnexpectedEOF
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// grow doubles the buffer, up to two PDUs of the longest kind: by then as many
// bytes have arrived as the old one held.
func (r *Reader) grow() {
	limit := 2 * (BHSLen + r.maxAHS + r.maxData + 3)
	b := make([]byte, min(2*len(r.buf), max(limit, len(r.buf)+BHSLen)))
	r.end = copy(b, r.buf[r.at:r.end])
	r.at = 0
	r.buf = b
}
