package pdu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/iotest"
)

// wire is a PDU's bytes.
func wire(ahs, data int) []byte {
	var h BHS
	h[offOpcode], h[offAHSLen] = byte(OpNopOut), byte(ahs/4)
	h.SetDataLen(data)
	b := append(h[:], bytes.Repeat([]byte{0xa5}, ahs)...)
	b = append(b, bytes.Repeat([]byte{0xda}, data)...)
	return append(b, make([]byte, Pad(data))...)
}

func whole(t testing.TB, p PDU, ahs, data int) {
	t.Helper()
	if p.BHS.AHSLen() != ahs || !bytes.Equal(p.AHS, bytes.Repeat([]byte{0xa5}, ahs)) || !bytes.Equal(p.Data, bytes.Repeat([]byte{0xda}, data)) {
		t.Fatalf("got %d and %d bytes, want %d and %d", len(p.AHS), len(p.Data), ahs, data)
	}
}

var sizes = []struct{ ahs, data int }{
	{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {4, 0}, {1020, 5}, {0, 4047}, {0, 4048}, {0, 4049}, {8, 8191}, {0, 8192}, {1020, 8192},
}

// A stream of PDUs of all sizes is cut the same, however it arrives.
func TestReader(t *testing.T) {
	var stream []byte
	for range 5 {
		for _, s := range sizes {
			stream = append(stream, wire(s.ahs, s.data)...)
		}
	}
	for name, src := range map[string]io.Reader{
		"at once":        bytes.NewReader(stream),
		"byte by byte":   iotest.OneByteReader(bytes.NewReader(stream)),
		"half by half":   iotest.HalfReader(bytes.NewReader(stream)),
		"error with end": iotest.DataErrReader(bytes.NewReader(stream)),
		"after timeouts": &hesitant{src: bytes.NewReader(stream)},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(src, 8192, 1020)
			for range 5 {
				for _, s := range sizes {
					p, err := r.Next()
					for errors.Is(err, os.ErrDeadlineExceeded) {
						p, err = r.Next()
					}
					if err != nil {
						t.Fatal(err)
					}
					whole(t, p, s.ahs, s.data)
				}
			}
			_, err := r.Next()
			for errors.Is(err, os.ErrDeadlineExceeded) {
				_, err = r.Next()
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

// hesitant times out before every seven bytes.
type hesitant struct {
	src  io.Reader
	late bool
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.late = !h.late; h.late {
		return 0, os.ErrDeadlineExceeded
	}
	return h.src.Read(p[:min(7, len(p))])
}

// A stream that ends within a PDU is an error at every byte, and io.EOF only
// between two.
func TestTruncated(t *testing.T) {
	b := wire(8, 5)
	for n := range len(b) {
		r := NewReader(bytes.NewReader(append(bytes.Clone(b), b[:n]...)), 8192, 1020)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if _, err := r.Next(); !errors.Is(err, want) {
			t.Errorf("after %d bytes: %v, want %v", n, err, want)
		}
	}
}

// What is longer than declared is refused as soon as the header is there, before
// anything is allocated for it.
func TestTooLong(t *testing.T) {
	for _, tt := range []struct{ ahs, data, maxAHS, maxData int }{
		{0, 8193, 1020, 8192}, {0, 1<<24 - 1, 1020, 8192}, {4, 0, 0, 8192}, {1020, 0, 1016, 8192}, {0, 1, 0, 0},
	} {
		var h BHS
		h[offAHSLen] = byte(tt.ahs / 4)
		h.SetDataLen(tt.data)
		r := NewReader(bytes.NewReader(h[:]), tt.maxData, tt.maxAHS)
		if _, err := r.Next(); !errors.Is(err, ErrTooLong) {
			t.Errorf("%+v: %v", tt, err)
		}
		if _, err := r.Next(); !errors.Is(err, ErrTooLong) || !r.Buffered() {
			t.Errorf("%+v: the error is not final: %v", tt, err)
		}
		if len(r.buf) != initialBuffer {
			t.Errorf("%+v: %d bytes for it", tt, len(r.buf))
		}
	}
}

// The buffer grows with what has arrived, to what is read ahead and two PDUs
// of the longest kind.
func TestGrowth(t *testing.T) {
	const maxData = 256 << 10
	b := wire(0, maxData)
	for arrived := BHSLen; arrived < len(b); arrived += 3000 {
		r := NewReader(bytes.NewReader(b[:arrived]), maxData, 1020)
		if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		if len(r.buf) > max(initialBuffer, 2*arrived) {
			t.Fatalf("%d bytes for the %d that arrived", len(r.buf), arrived)
		}
	}
	r := NewReader(bytes.NewReader(bytes.Repeat(b, 20)), maxData, 1020)
	for range 20 {
		p, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		whole(t, p, 0, maxData)
	}
	if limit := readAhead + 2*(BHSLen+1020+maxData+3+2*DigestLen); len(r.buf) > limit {
		t.Errorf("%d bytes, limit %d", len(r.buf), limit)
	}
}

// A limit that is raised between two PDUs, as at the end of login, counts for
// what is buffered already.
func TestSetMaxData(t *testing.T) {
	r := NewReader(bytes.NewReader(append(wire(0, 10), wire(0, 20000)...)), 8192, 0)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	r.SetMaxData(20000)
	p, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	whole(t, p, 0, 20000)
}

func TestBuffered(t *testing.T) {
	b := wire(0, 100)
	r := NewReader(bytes.NewReader(append(bytes.Clone(b), append(b, b[:60]...)...)), 8192, 0)
	for _, want := range []bool{true, false} {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if r.Buffered() != want {
			t.Errorf("Buffered: %t", !want)
		}
	}
}

func TestErrorsOfTheSource(t *testing.T) {
	r := NewReader(iotest.ErrReader(io.ErrClosedPipe), 8192, 0)
	if _, err := r.Next(); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	r = NewReader(nothing{}, 8192, 0)
	if _, err := r.Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, nil }

// FuzzReader: whatever comes, in whatever pieces, is cut into the same PDUs, no
// longer than declared.
func FuzzReader(f *testing.F) {
	for _, s := range sizes[:7] {
		f.Add(wire(s.ahs, s.data), byte(3))
	}
	f.Add(bytes.Repeat([]byte{0xff}, 200), byte(1))
	f.Fuzz(func(t *testing.T, stream []byte, piece byte) {
		atOnce := cutAll(NewReader(bytes.NewReader(stream), 512, 64))
		pieces := cutAll(NewReader(&inPieces{bytes.NewReader(stream), int(piece)%13 + 1}, 512, 64))
		if atOnce != pieces {
			t.Errorf("at once  %s\nin parts %s", atOnce, pieces)
		}
	})
}

type inPieces struct {
	src io.Reader
	n   int
}

func (r *inPieces) Read(p []byte) (int, error) { return r.src.Read(p[:min(r.n, len(p))]) }

func cutAll(r *Reader) string {
	var out bytes.Buffer
	for {
		p, err := r.Next()
		if err != nil {
			fmt.Fprint(&out, err)
			return out.String()
		}
		if len(p.Data) > 512 || len(p.AHS) > 64 || len(p.Data) != p.BHS.DataLen() || len(p.AHS) != p.BHS.AHSLen() {
			return "a PDU longer than declared"
		}
		fmt.Fprintf(&out, "%x %x %x|", p.BHS[:], p.AHS, p.Data)
	}
}

// A stream of short PDUs is read many at a time, as far as that is worth it; a silent
// one's memory can be had back.
func TestReaderReadsAhead(t *testing.T) {
	stream := bytes.Repeat(wire(0, 4096), 200)
	src := &counted{src: bytes.NewReader(stream)}
	r := NewReader(src, 256<<10, 1020)
	for range 200 {
		p, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		whole(t, p, 0, 4096)
	}
	if src.reads > 20 || len(r.buf) != readAhead {
		t.Errorf("%d reads, into %d bytes", src.reads, len(r.buf))
	}
	if r.Shrink(); len(r.buf) != initialBuffer {
		t.Errorf("%d bytes left of it", len(r.buf))
	}
	src.src = bytes.NewReader(append(wire(0, 100), wire(0, 50)...))
	if p, err := r.Next(); err != nil {
		t.Error(err)
	} else {
		whole(t, p, 0, 100)
	}
	if r.Shrink(); !r.Buffered() {
		t.Error("what was in it is gone")
	}
}

type counted struct {
	src   io.Reader
	reads int
}

func (c *counted) Read(p []byte) (int, error) {
	c.reads++
	return c.src.Read(p)
}

// What has a PDU's memory keeps it when the reader goes on.
func TestReaderDetach(t *testing.T) {
	r := NewReader(bytes.NewReader(append(wire(0, 100), wire(8, 50)...)), 8192, 1020)
	first, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	r.Detach()
	second, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	clear(second.Data)
	whole(t, first, 0, 100)
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
