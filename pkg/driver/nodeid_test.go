package driver

import (
	"errors"
	"strings"
	"testing"
)

const testNodeUUID = "0123456789abcdef0123456789abcdef"

func testNodeID() NodeID {
	id := NodeID{UUID: testNodeUUID}
	for i := range id.PublicKey {
		id.PublicKey[i] = byte(i*7 + 1)
	}
	return id
}

func TestNodeIDRoundTrip(t *testing.T) {
	want := testNodeID()
	s := want.String()
	if len(s) != 76 {
		t.Errorf("node id is %d bytes: %s", len(s), s)
	}
	got, err := ParseNodeID(s)
	if err != nil || got != want {
		t.Fatalf("ParseNodeID(%q) = %v, %v", s, got, err)
	}
}

func TestParseNodeIDRefuses(t *testing.T) {
	good := testNodeID().String()
	for i := range good {
		if _, err := ParseNodeID(good[:i]); !errors.Is(err, ErrInvalidNodeID) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	uuid, key, _ := strings.Cut(good, ".")
	for name, s := range map[string]string{
		"upper case":      strings.ToUpper(uuid) + "." + key,
		"two dots":        good + ".x",
		"padding":         good + "=",
		"line break":      uuid + "." + key[:10] + "\n" + key[11:],
		"trailing bits":   good[:len(good)-1] + "B",
		"standard base64": uuid + "." + strings.Repeat("+", len(key)),
		"zero key":        NodeID{UUID: uuid}.String(),
		"long":            strings.Repeat(good, 1000),
		"host name":       "worker-1",
	} {
		if id, err := ParseNodeID(s); !errors.Is(err, ErrInvalidNodeID) {
			t.Errorf("%s: %q = %v, %v", name, s, id, err)
		}
	}
}

func TestInitiatorName(t *testing.T) {
	if got, want := InitiatorName(testNodeUUID), "iqn.2026-11.io.csi-ietd:node."+testNodeUUID; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzParseNodeID(f *testing.F) {
	f.Add(testNodeID().String())
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseNodeID(s)
		if err == nil && id.String() != s {
			t.Errorf("%q came back as %q", s, id)
		}
	})
}
