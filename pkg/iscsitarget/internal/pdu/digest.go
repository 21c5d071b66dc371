package pdu

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// DigestLen is the length of a header or data digest in bytes.
const DigestLen = 4

// ErrHeaderDigest is a PDU whose header digest is wrong. Its lengths may be what
// is damaged, so the next PDU cannot be found (RFC 7143 section 7.8).
var ErrHeaderDigest = errors.New("header digest is wrong")

// Digests says which digests the PDUs of a connection carry once it is in
// full-feature phase (RFC 7143 sections 11.2.3 and 13.1).
type Digests struct{ Header, Data bool }

// castagnoli is CRC32C's table; the processor does the work where it can.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Digest is the CRC32C of a segment that lies in parts, padding included, in the
// order of its bytes on the wire (RFC 7143 section 13.1 and its appendix A.4).
func Digest(parts ...[]byte) (d [DigestLen]byte) {
	crc := uint32(0)
	for _, b := range parts {
		crc = crc32.Update(crc, castagnoli, b)
	}
	binary.LittleEndian.PutUint32(d[:], crc)
	return d
}

// Append adds a PDU without additional headers to b, as it goes over the wire.
func (d Digests) Append(b []byte, h BHS, data []byte) []byte {
	h.SetDataLen(len(data))
	b = append(b, h[:]...)
	if d.Header {
		digest := Digest(h[:])
		b = append(b, digest[:]...)
	}
	at := len(b)
	b = append(append(b, data...), make([]byte, Pad(len(data)))...)
	if d.Data && len(data) > 0 {
		digest := Digest(b[at:])
		b = append(b, digest[:]...)
	}
	return b
}
