package isns

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func read(b []byte) (message, error) { return messageReader{bytes.NewReader(b), maxAnswer}.next() }

// golden are messages and their bytes in hexadecimal.
var golden = []struct {
	name    string
	message message
	bytes   string
}{
	{"DevAttrReg", message{devAttrReg, true, 0x0102, request("iqn.a:t", attrs{text(tagEntityID, "host")}, slices.Concat(
		attrs{text(tagEntityID, "host"), number(tagEntityProtocol, entityISCSI), number(tagRegistrationPeriod, 600)},
		portal{addr: netip.MustParseAddrPort("192.0.2.1:3260"), inquiries: 0x1234, status: true}.attrs(time.Minute),
		Target{Name: "iqn.a:t", Alias: "x"}.attrs(nil)))},
		`0001 0001 00c0 9c00 0102 0000
		00000020 00000008 69716e2e613a7400
		00000001 00000008 686f737400000000
		00000000 00000000
		00000001 00000008 686f737400000000
		00000002 00000004 00000002
		00000006 00000004 00000258
		00000010 00000010 00000000000000000000ffffc0000201
		00000011 00000004 00000cbc
		00000013 00000004 0000003c
		00000014 00000004 00001234
		00000017 00000004 00001234
		00000020 00000008 69716e2e613a7400
		00000021 00000004 00000001
		00000022 00000004 78000000`},
	{"DevAttrReg of a portal group", message{devAttrReg, false, 1, request("iqn.a:tt", nil,
		Target{Name: "iqn.a:tt"}.attrs([]portal{{addr: netip.MustParseAddrPort("[2001:db8::1]:3261"), group: 7}}))},
		`0001 0001 006c 8c00 0001 0000
		00000020 0000000c 69716e2e613a747400000000
		00000000 00000000
		00000020 0000000c 69716e2e613a747400000000
		00000021 00000004 00000001
		00000033 00000004 00000007
		00000031 00000010 20010db8000000000000000000000001
		00000032 00000004 00000cbd`},
	{"DevAttrQry", message{devAttrQry, false, 2, request("iqn.a:t", attrs{number(tagNodeType, nodeInitiator)}, attrs{none(tagNodeName), none(tagNodeType)})},
		`0001 0002 0034 8c00 0002 0000
		00000020 00000008 69716e2e613a7400
		00000021 00000004 00000002
		00000000 00000000
		00000020 00000000
		00000021 00000000`},
	{"DevGetNext", message{devGetNext, false, 2, request("iqn.a:t", attrs{none(tagNodeName)}, attrs{number(tagNodeType, nodeInitiator), none(tagNodeName)})},
		`0001 0003 0034 8c00 0002 0000
		00000020 00000008 69716e2e613a7400
		00000020 00000000
		00000000 00000000
		00000021 00000004 00000002
		00000020 00000000`},
	{"DevDereg", message{devDereg, false, 3, request("iqn.a:t", nil, attrs{text(tagEntityID, "host")})},
		`0001 0004 0028 8c00 0003 0000
		00000020 00000008 69716e2e613a7400
		00000000 00000000
		00000001 00000008 686f737400000000`},
	{"SCNReg", message{scnReg, false, 4, request("iqn.a:t", attrs{text(tagNodeName, "iqn.a:t")}, attrs{number(tagSCNBitmap, uint32(wantedEvents))})},
		`0001 0005 0034 8c00 0004 0000
		00000020 00000008 69716e2e613a7400
		00000020 00000008 69716e2e613a7400
		00000000 00000000
		00000023 00000004 0000001c`},
	{"SCNDereg", message{scnDereg, false, 5, request("iqn.a:t", attrs{text(tagNodeName, "iqn.a:t")}, nil)},
		`0001 0006 0028 8c00 0005 0000
		00000020 00000008 69716e2e613a7400
		00000020 00000008 69716e2e613a7400
		00000000 00000000`},
	{"ESI response", message{esi | response, false, 6, answer(Success, attrs{text(tagEntityID, "host")})},
		`0001 800d 0014 8c00 0006 0000
		00000000
		00000001 00000008 686f737400000000`},
	{"a refusal", message{devAttrReg | response, false, 7, answer(SourceUnauthorized, nil)},
		`0001 8001 0004 8c00 0007 0000 00000008`},
}

func TestGolden(t *testing.T) {
	for _, c := range golden {
		t.Run(c.name, func(t *testing.T) {
			want := unhex(t, c.bytes)
			if got := c.message.append(nil); !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
			got, err := read(want)
			if err != nil || !reflect.DeepEqual(got, c.message) {
				t.Errorf("read %+v, %v, want %+v", got, err, c.message)
			}
		})
	}
}

// A message that ends early is no message, wherever it ends.
func TestTruncated(t *testing.T) {
	for _, c := range golden {
		b := unhex(t, c.bytes)
		for n := range b {
			_, err := read(b[:n])
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if !errors.Is(err, want) {
				t.Errorf("%s, %d of %d bytes: %v, want %v", c.name, n, len(b), err, want)
			}
		}
		whole := c.message.payload
		if c.message.function&response != 0 {
			whole = whole[4:]
		}
		all, err := parseAttrs(whole)
		if err != nil {
			t.Fatal(err)
		}
		for n := range whole {
			l, err := parseAttrs(whole[:n])
			if len(l) >= len(all) {
				t.Errorf("%s, %d of %d bytes: all attributes", c.name, n, len(whole))
			}
			if err == nil && len(l.append(nil)) != n {
				t.Errorf("%s, %d of %d bytes: some were passed over", c.name, n, len(whole))
			}
		}
	}
}

// A message of several PDUs is what it was.
func TestManyPDUs(t *testing.T) {
	for _, size := range []int{0, maxPDU, maxPDU + 4, 3 * maxPDU, maxAnswer} {
		m := message{devAttrQry | response, false, 9, bytes.Repeat([]byte{1, 2, 3, 4}, size/4)}
		got, err := read(m.append(nil))
		if err != nil || !bytes.Equal(got.payload, m.payload) {
			t.Errorf("%d bytes: read %d, %v", size, len(got.payload), err)
		}
	}
}

func TestRefusedMessages(t *testing.T) {
	pdu := func(f function, length int, fl flags, transaction, sequence uint16) []byte {
		return append(appendHeader(nil, f, length, fl, transaction, sequence), make([]byte, length)...)
	}
	const both = firstPDU | lastPDU
	for _, c := range []struct {
		name string
		b    []byte
	}{
		{"another version", append([]byte{0, 2}, pdu(esi, 0, both, 1, 0)[2:]...)},
		{"a length that is no multiple of four", pdu(esi, 5, both, 1, 0)},
		{"no first PDU", pdu(esi, 4, lastPDU, 1, 0)},
		{"a wrong sequence", pdu(esi, 4, both, 1, 1)},
		{"a PDU is missing", append(pdu(esi, 4, firstPDU, 1, 0), pdu(esi, 4, lastPDU, 1, 2)...)},
		{"two first PDUs", append(pdu(esi, 4, firstPDU, 1, 0), pdu(esi, 4, both, 1, 1)...)},
		{"another transaction", append(pdu(esi, 4, firstPDU, 1, 0), pdu(esi, 4, lastPDU, 2, 1)...)},
		{"another function", append(pdu(esi, 4, firstPDU, 1, 0), pdu(scn, 4, lastPDU, 1, 1)...)},
		{"too long", append((message{function: esi, payload: make([]byte, maxAnswer)}).append(nil)[:0:0],
			message{function: esi, payload: make([]byte, maxAnswer+4)}.append(nil)...)},
	} {
		if _, err := read(c.b); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// endless is a message without an end, of empty PDUs or of full ones.
type endless struct {
	length   int
	sequence uint16
	given    int
	rest     []byte
}

func (e *endless) Read(b []byte) (int, error) {
	if len(e.rest) == 0 {
		fl := flags(0)
		if e.sequence == 0 {
			fl = firstPDU
		}
		e.rest = append(appendHeader(nil, devAttrQry|response, e.length, fl, 1, e.sequence), make([]byte, e.length)...)
		e.sequence++
	}
	n := copy(b, e.rest)
	e.rest = e.rest[n:]
	e.given += n
	return n, nil
}

func TestEndlessMessage(t *testing.T) {
	for _, length := range []int{0, 4, maxPDU} {
		e := &endless{length: length}
		if _, err := (messageReader{e, maxAnswer}).next(); !errors.Is(err, errFormat) {
			t.Errorf("PDUs of %d bytes: %v", length, err)
		}
		if e.given > maxAnswer+maxPDU+maxPDUs*headerLen {
			t.Errorf("PDUs of %d bytes: read %d bytes", length, e.given)
		}
	}
}
