package scsi

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

const nameA = "iqn.2026-11.io.example:host"

func id(format byte, text string, padded int) []byte {
	b := append([]byte{format<<6 | 5, 0, byte(padded >> 8), byte(padded)}, text...)
	return append(b, make([]byte, 4+padded-len(b))...)
}

func TestTransportID(t *testing.T) {
	port := nameA + ",i,0x0123456789ab"
	golden := "45000030" + hex.EncodeToString([]byte(port)) + "00000000"
	if got := hex.EncodeToString(appendTransportID(nil, port)); got != golden {
		t.Errorf("%s: %s", port, got)
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want transportID
		ok   bool
	}{
		{"port", appendTransportID(nil, port), transportID{nameA, port}, true},
		{"short port", appendTransportID(nil, "iqn.a,i,0x000000000001"), transportID{"iqn.a", "iqn.a,i,0x000000000001"}, true},
		{"upper case", id(1, strings.ToUpper(nameA)+",I,0X0123456789AB", 48), transportID{nameA, port}, true},
		{"few digits", id(1, nameA+",i,0x1", 36), transportID{nameA, nameA + ",i,0x000000000001"}, true},
		{"node", id(0, nameA, 28), transportID{node: nameA}, true},
		{"other protocol", append([]byte{0x46}, appendTransportID(nil, port)[1:]...), transportID{}, false},
		{"format 2", id(2, nameA, 28), transportID{}, false},
		{"no ISID", id(1, nameA, 28), transportID{}, false},
		{"13 digits", id(1, nameA+",i,0x0123456789abc", 48), transportID{}, false},
		{"no digits", id(1, nameA+",i,0x", 36), transportID{}, false},
		{"node with ISID", id(0, port, 48), transportID{}, false},
		{"no name", id(0, "", 20), transportID{}, false},
		{"long name", id(0, strings.Repeat("x", 224), 228), transportID{}, false},
		{"not terminated", id(0, "iqn.aaaaaaaaaaaaaaaa", 20), transportID{}, false},
		{"length not a multiple of four", id(0, nameA, 30), transportID{}, false},
		{"too short", id(0, "iqn.a", 16), transportID{}, false},
	} {
		got, rest, ok := parseTransportID(append(bytes.Clone(tt.b), 1, 2, 3))
		if ok != tt.ok || ok && (got != tt.want || !bytes.Equal(rest, []byte{1, 2, 3})) {
			t.Errorf("%s: %+v, %x, %v", tt.name, got, rest, ok)
		}
		for n := range tt.b {
			if _, _, ok := parseTransportID(tt.b[:n]); ok {
				t.Errorf("%s: %d bytes of %d are enough", tt.name, n, len(tt.b))
			}
		}
	}
}

// FuzzTransportID: what is understood is written in the same way ever after.
func FuzzTransportID(f *testing.F) {
	f.Add(appendTransportID(nil, portNames[portA]))
	f.Add(id(0, nameA, 28))
	f.Add(id(1, nameA+",i,0x1", 36))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _, ok := parseTransportID(b)
		if !ok || got.port == "" {
			return
		}
		again, rest, ok := parseTransportID(appendTransportID(nil, got.port))
		if !ok || again != got || len(rest) != 0 {
			t.Errorf("%x: %+v, then %+v", b, got, again)
		}
	})
}
