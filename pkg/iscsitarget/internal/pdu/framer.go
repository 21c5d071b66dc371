package pdu

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// ErrTooLong is a PDU longer than this end declared that it takes: the stream
// cannot be trusted any further.
var ErrTooLong = errors.New("PDU is too long")

// initialBuffer holds a login PDU; most connections of a hostile peer never
// need more.
const initialBuffer = 4 << 10

// readAhead is how many bytes are read at once, where as many come and no PDU needs more.
const readAhead = 512 << 10

// PDU is one received PDU. AHS and Data lie in the Reader's buffer: they are
// valid until its next call.
type PDU struct {
	BHS  BHS
	AHS  []byte
	Data []byte
	// Damaged: the data digest is wrong. The header may be trusted.
	Damaged bool
}

// Reader cuts a byte stream into PDUs. It reads in pieces as large as its
// buffer, which grows with what has arrived, never with what a header claims.
type Reader struct {
	src     io.Reader
	buf     []byte
	at, end int // what is buffered is buf[at:end]
	maxData atomic.Int64
	maxAHS  int
	digests Digests
	checked bool // the digest of the header at the buffer's start is right
	filled  bool // the last read took all that there was room for
}

// NewReader reads PDUs with data segments of up to maxData bytes and
// additional headers of up to maxAHS bytes.
func NewReader(src io.Reader, maxData, maxAHS int) *Reader {
	r := &Reader{src: src, buf: make([]byte, initialBuffer), maxAHS: maxAHS}
	r.SetMaxData(maxData)
	return r
}

// SetMaxData changes the longest data segment taken, in bytes.
func (r *Reader) SetMaxData(n int) { r.maxData.Store(int64(n)) }

// SetDigests changes which digests the PDUs to come carry.
func (r *Reader) SetDigests(d Digests) { r.digests = d }

// Buffered says whether a whole PDU is in memory, so that Next would not wait.
func (r *Reader) Buffered() bool {
	n, whole, err := r.need()
	return err != nil || whole && r.end-r.at >= n
}

// Next reads the next PDU. After an error that is a timeout, Next may be called
// again and goes on where it stopped; any other error is final. io.EOF means
// that the stream ended between two PDUs.
func (r *Reader) Next() (PDU, error) {
	for {
		n, whole, err := r.need()
		if err != nil {
			return PDU{}, err
		}
		if whole && r.end-r.at >= n {
			return r.cut(n), nil
		}
		if err := r.fill(n); err != nil {
			return PDU{}, err
		}
	}
}

// Fill reads once, and returns errors as Next does. It is called where nothing is
// Buffered.
func (r *Reader) Fill() error {
	n, _, err := r.need()
	if err != nil {
		return err
	}
	return r.fill(n)
}

// Shrink gives back what a busy stream has made of the buffer, where nothing is in it.
func (r *Reader) Shrink() {
	if r.at == r.end && len(r.buf) > initialBuffer {
		r.buf, r.at, r.end = make([]byte, initialBuffer), 0, 0
	}
}

// Detach leaves the memory that PDUs lie in to who has them, for good, and goes on with
// another.
func (r *Reader) Detach() {
	b := make([]byte, max(initialBuffer, r.end-r.at))
	r.end = copy(b, r.buf[r.at:r.end])
	r.at, r.buf = 0, b
}

// need is how many bytes must be buffered to go on. They are the whole PDU at
// the buffer's start, or as much of its header as its length hangs on: a header
// is not believed before its digest is right.
func (r *Reader) need() (n int, whole bool, err error) {
	if r.end-r.at < BHSLen {
		return BHSLen, false, nil
	}
	h := (*BHS)(r.buf[r.at:])
	if h.AHSLen() > r.maxAHS {
		return 0, false, fmt.Errorf("%w: additional headers of %d bytes, at most %d taken", ErrTooLong, h.AHSLen(), r.maxAHS)
	}
	n = r.headerLen(h)
	if r.digests.Header && !r.checked {
		if r.end-r.at < n {
			return n, false, nil
		}
		b := r.buf[r.at : r.at+n]
		if end := n - DigestLen; Digest(b[:end]) != [DigestLen]byte(b[end:]) {
			return 0, false, ErrHeaderDigest
		}
		r.checked = true
	}
	if most := int(r.maxData.Load()); h.DataLen() > most {
		return 0, false, fmt.Errorf("%w: data segment of %d bytes, at most %d taken", ErrTooLong, h.DataLen(), most)
	}
	n += h.DataLen() + Pad(h.DataLen())
	if r.digests.Data && h.DataLen() > 0 {
		n += DigestLen
	}
	return n, true, nil
}

// headerLen is where the data segment begins.
func (r *Reader) headerLen(h *BHS) int {
	n := BHSLen + h.AHSLen()
	if r.digests.Header {
		n += DigestLen
	}
	return n
}

func (r *Reader) cut(n int) (p PDU) {
	b := r.buf[r.at : r.at+n]
	r.at += n
	r.checked = false
	p.BHS = BHS(b)
	ahs, data := BHSLen+p.BHS.AHSLen(), r.headerLen(&p.BHS)
	end := data + p.BHS.DataLen()
	p.AHS = b[BHSLen:ahs:ahs]
	p.Data = b[data:end:end]
	if r.digests.Data && len(p.Data) > 0 {
		padded := n - DigestLen
		p.Damaged = Digest(b[data:padded]) != [DigestLen]byte(b[padded:])
	}
	return p
}

// fill reads once; want is how many bytes must fit into the buffer.
func (r *Reader) fill(want int) error {
	if r.at > 0 && (r.at == r.end || len(r.buf)-r.at < want) {
		r.end = copy(r.buf, r.buf[r.at:r.end])
		r.at = 0
	}
	if r.end == len(r.buf) || r.filled && len(r.buf) < readAhead {
		r.grow()
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	r.filled = r.end == len(r.buf)
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

// grow doubles the buffer, up to what is read ahead and two PDUs of the longest kind: by
// then as many bytes have arrived as the old one held.
func (r *Reader) grow() {
	limit := readAhead + 2*(BHSLen+r.maxAHS+int(r.maxData.Load())+3+2*DigestLen)
	b := make([]byte, min(2*len(r.buf), max(limit, len(r.buf)+BHSLen)))
	r.end = copy(b, r.buf[r.at:r.end])
	r.at = 0
	r.buf = b
}
