package pdu

import "testing"

// BenchmarkReader cuts a stream of commands with 4 KiB of data each into PDUs and parses
// them, without digests and with both.
func BenchmarkReader(b *testing.B) {
	for name, d := range map[string]Digests{"plain": {}, "digests": {Header: true, Data: true}} {
		b.Run(name, func(b *testing.B) {
			one := SCSICommand{ITT: 1, Write: true, Final: true, ExpectedLength: 4096}.Header()
			one.SetDataLen(4096)
			var stream []byte
			for range 16 {
				stream = append(stream, one[:]...)
				if d.Header {
					digest := Digest(one[:])
					stream = append(stream, digest[:]...)
				}
				data := make([]byte, 4096)
				stream = append(stream, data...)
				if d.Data {
					digest := Digest(data)
					stream = append(stream, digest[:]...)
				}
			}
			src := &endless{b: stream}
			r := NewReader(src, 256<<10, 1020)
			r.SetDigests(d)
			b.SetBytes(4096)
			b.ReportAllocs()
			for b.Loop() {
				p, err := r.Next()
				if err != nil || p.Damaged {
					b.Fatal(err, p.Damaged)
				}
				if req := ParseSCSICommand(&p.BHS); req.ExpectedLength != 4096 {
					b.Fatalf("%+v", req)
				}
			}
		})
	}
}

// endless reads b over and over.
type endless struct {
	b  []byte
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.at:])
	e.at = (e.at + n) % len(e.b)
	return n, nil
}
