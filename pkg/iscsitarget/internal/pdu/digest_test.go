package pdu

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// The examples of RFC 7143 appendix A.4: bytes, and their CRC as it is sent.
func TestDigestGolden(t *testing.T) {
	up, down := make([]byte, 32), make([]byte, 32)
	for i := range up {
		up[i], down[i] = byte(i), byte(31-i)
	}
	read := "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"
	for _, tt := range []struct {
		name  string
		bytes []byte
		want  string
	}{
		{"nothing", nil, "00000000"},
		{"zeros", make([]byte, 32), "aa36918a"},
		{"ones", bytes.Repeat([]byte{0xff}, 32), "43aba862"},
		{"incrementing", up, "4e79dd46"},
		{"decrementing", down, "5cdb3f11"},
		{"a READ(10) command", unhex(t, read), "563a96d9"},
	} {
		for cut := range len(tt.bytes) + 1 {
			if got := Digest(tt.bytes[:cut], tt.bytes[cut:]); hex.EncodeToString(got[:]) != tt.want {
				t.Errorf("%s in two parts, %d bytes first: %x, want %s", tt.name, cut, got, tt.want)
			}
		}
	}
	h := BHS(unhex(t, read))
	if got := (Digests{Header: true, Data: true}).Append(nil, h, nil); hex.EncodeToString(got[BHSLen:]) != "563a96d9" {
		t.Errorf("behind the header comes % x", got[BHSLen:])
	}
	if got := (Digests{Data: true}).Append(nil, h, make([]byte, 32)); hex.EncodeToString(got[BHSLen+32:]) != "aa36918a" {
		t.Errorf("behind the data comes % x", got[BHSLen+32:])
	}
	// Padding is covered: 29 zeros and three more are the 32 of the example.
	if got := (Digests{Data: true}).Append(nil, h, make([]byte, 29)); hex.EncodeToString(got[BHSLen+32:]) != "aa36918a" {
		t.Errorf("behind the padding comes % x", got[BHSLen+32:])
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var everyDigest = []Digests{{}, {Header: true}, {Data: true}, {Header: true, Data: true}}

// digested is wire with digests.
func digested(d Digests, ahs, data int) []byte {
	plain := wire(ahs, data)
	head, rest := plain[:BHSLen+ahs], plain[BHSLen+ahs:]
	b := bytes.Clone(head)
	if d.Header {
		crc := Digest(head)
		b = append(b, crc[:]...)
	}
	b = append(b, rest...)
	if d.Data && data > 0 {
		crc := Digest(rest)
		b = append(b, crc[:]...)
	}
	return b
}

// A stream with digests is cut the same, however it arrives, and ends in an
// error at every byte within a PDU.
func TestReaderWithDigests(t *testing.T) {
	for _, d := range everyDigest {
		var stream []byte
		for range 3 {
			for _, s := range sizes {
				stream = append(stream, digested(d, s.ahs, s.data)...)
			}
		}
		for name, src := range map[string]io.Reader{
			"at once":      bytes.NewReader(stream),
			"byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
			"half by half": iotest.HalfReader(bytes.NewReader(stream)),
		} {
			r := NewReader(src, 8192, 1020)
			r.SetDigests(d)
			for range 3 {
				for _, s := range sizes {
					p, err := r.Next()
					if err != nil || p.Damaged {
						t.Fatalf("%+v %s: damaged %t, %v", d, name, p.Damaged, err)
					}
					whole(t, p, s.ahs, s.data)
				}
			}
			if _, err := r.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("%+v %s at the end: %v", d, name, err)
			}
		}
		one := digested(d, 8, 5)
		for n := 1; n < len(one); n++ {
			r := NewReader(bytes.NewReader(one[:n]), 8192, 1020)
			r.SetDigests(d)
			if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%+v after %d bytes: %v", d, n, err)
			}
		}
	}
}

// A flipped bit in a header, its additional segments or its digest ends the
// stream: before anything of the data is waited for, and before the length that
// it claims is believed.
func TestDamagedHeader(t *testing.T) {
	const ahs = 8
	good := digested(Digests{Header: true, Data: true}, ahs, 5)
	for bit := range 8 * (BHSLen + ahs + DigestLen) {
		if bit/8 == offAHSLen {
			continue // more, or less, is taken for the header then
		}
		b := bytes.Clone(good[:BHSLen+ahs+DigestLen])
		b[bit/8] ^= 1 << (bit % 8)
		// The first header was right: that says nothing about the next.
		r := NewReader(io.MultiReader(bytes.NewReader(good), bytes.NewReader(b), iotest.ErrReader(errors.New("read on"))), 8192, 1020)
		r.SetDigests(Digests{Header: true, Data: true})
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := r.Next(); !errors.Is(err, ErrHeaderDigest) || !r.Buffered() {
				t.Fatalf("bit %d: %v", bit, err)
			}
		}
	}
	for bit := range 8 {
		b := append(bytes.Clone(good), make([]byte, 1024)...)
		b[offAHSLen] ^= 1 << bit
		r := NewReader(bytes.NewReader(b), 8192, 1020)
		r.SetDigests(Digests{Header: true, Data: true})
		if _, err := r.Next(); !errors.Is(err, ErrHeaderDigest) {
			t.Fatalf("length of the additional headers, bit %d: %v", bit, err)
		}
	}
}

// A flipped bit in data, padding or data digest damages its PDU, and no other.
func TestDamagedData(t *testing.T) {
	for _, d := range []Digests{{Data: true}, {Header: true, Data: true}} {
		good := digested(d, 0, 5)
		from := BHSLen
		if d.Header {
			from += DigestLen
		}
		for bit := 8 * from; bit < 8*len(good); bit++ {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			r := NewReader(bytes.NewReader(append(b, good...)), 8192, 1020)
			r.SetDigests(d)
			for _, damaged := range []bool{true, false} {
				p, err := r.Next()
				if err != nil || p.Damaged != damaged || len(p.Data) != 5 {
					t.Fatalf("%+v bit %d: damaged %t, %v", d, bit, p.Damaged, err)
				}
			}
		}
	}
}

// Digests that begin between two PDUs count for what is buffered already.
func TestSetDigests(t *testing.T) {
	d := Digests{Header: true, Data: true}
	r := NewReader(bytes.NewReader(append(wire(0, 10), digested(d, 0, 10)...)), 8192, 0)
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	r.SetDigests(d)
	p, err := r.Next()
	if err != nil || p.Damaged {
		t.Fatal(p.Damaged, err)
	}
	whole(t, p, 0, 10)
}

// FuzzReaderWithDigests: what is cut out of a stream is what Append would have
// made of it, unless it says that it is damaged.
func FuzzReaderWithDigests(f *testing.F) {
	for i, s := range sizes[:7] {
		f.Add(digested(everyDigest[i%4], s.ahs, s.data), byte(i))
	}
	f.Fuzz(func(t *testing.T, stream []byte, digests byte) {
		d := everyDigest[digests%4]
		r := NewReader(bytes.NewReader(stream), 512, 0)
		r.SetDigests(d)
		for at := 0; ; {
			p, err := r.Next()
			if err != nil {
				return
			}
			again := d.Append(nil, p.BHS, p.Data)
			same := bytes.Equal(again, stream[at:at+len(again)])
			if p.Damaged && (same || !d.Data || len(p.Data) == 0) {
				t.Fatal("damaged, but the same")
			}
			if !p.Damaged && !same && Pad(len(p.Data)) == 0 {
				t.Fatal("not the same, but not damaged")
			}
			at += len(again)
		}
	})
}

func BenchmarkDigest(b *testing.B) {
	data := make([]byte, 256<<10)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		_ = Digest(data)
	}
}
