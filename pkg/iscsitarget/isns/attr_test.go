package isns

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestRefusedAttributes(t *testing.T) {
	for name, s := range map[string]string{
		"longer than the message": "00000020 00000008 61626300",
		"longer than memory":      "00000020 fffffffc",
		"no multiple of four":     "00000020 00000003 61626300",
		"half a header":           "00000020",
	} {
		if l, err := parseAttrs(unhex(t, s)); !errors.Is(err, errFormat) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	many := bytes.Repeat(none(tagNodeName).append(nil), maxAttrs)
	if l, err := parseAttrs(many); err != nil || len(l) != maxAttrs {
		t.Errorf("%d attributes: %d, %v", maxAttrs, len(l), err)
	}
	if _, err := parseAttrs(none(tagNodeName).append(many)); !errors.Is(err, errFormat) {
		t.Errorf("%d attributes: %v", maxAttrs+1, err)
	}
	if _, err := (attr{tagNodeType, make([]byte, 8)}).number(); !errors.Is(err, errFormat) {
		t.Error("a number of 8 bytes")
	}
	for _, n := range []int{0, 4, 20} {
		if _, err := (attr{tagPortalAddr, make([]byte, n)}).addr(); !errors.Is(err, errFormat) {
			t.Errorf("an address of %d bytes", n)
		}
	}
}

func TestStatusText(t *testing.T) {
	if got := SourceUnauthorized.Error(); !strings.Contains(got, "8") || !strings.Contains(got, "unauthorized") {
		t.Error(got)
	}
	for _, s := range []Status{4, 24, 1 << 31} {
		if s.Error() == "" {
			t.Error(uint32(s))
		}
	}
}

func TestNotificationOf(t *testing.T) {
	dd := attr{2065, []byte{0, 0, 0, 1}} // which a control node would be told
	l := attrs{text(tagNodeName, disk), {tagTimestamp, make([]byte, 8)},
		number(tagSCNBitmap, uint32(Added)), text(tagNodeName, initiator), dd,
		number(tagSCNBitmap, uint32(Removed|Updated)), text(tagNodeName, stranger)}
	got, err := parseNotification(l)
	want := Notification{disk, []Change{{initiator, Added}, {stranger, Removed | Updated}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []attrs{nil, l[1:], {l[0], {tagSCNBitmap, nil}}} {
		if _, err := parseNotification(bad); !errors.Is(err, errFormat) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestInitiatorsOf(t *testing.T) {
	l := attrs{
		text(tagNodeName, initiator), number(tagNodeType, nodeInitiator),
		text(tagNodeName, disk), number(tagNodeType, nodeTarget),
		text(tagNodeName, tape), // of no type
		text(tagNodeName, stranger), number(tagNodeType, nodeInitiator|nodeTarget),
		number(tagNodeType, nodeInitiator), // of no name
	}
	got, err := initiators(l)
	if err != nil || !slices.Equal(got, []string{initiator, stranger}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzParseMessage(f *testing.F) {
	for _, c := range golden {
		f.Add(unhex(f, c.bytes))
	}
	f.Add(message{function: scn, payload: attrs{text(tagNodeName, disk), number(tagSCNBitmap, 8), text(tagNodeName, initiator)}.append(nil)}.append(nil))
	two := append(appendHeader(nil, esi, 4, firstPDU, 1, 0), 0, 0, 0, byte(tagEntityID))
	f.Add(append(appendHeader(two, esi, 4, lastPDU, 1, 1), 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := read(b)
		if err != nil {
			return
		}
		again, err := read(m.append(nil))
		if err != nil || again.function != m.function || again.transaction != m.transaction || !bytes.Equal(again.payload, m.payload) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
		if l, err := parseAnswer(m.payload); err == nil {
			_, _ = initiators(l)
		}
		l, err := parseAttrs(m.payload)
		if err != nil {
			return
		}
		if got := l.append(nil); !bytes.Equal(got, m.payload) {
			t.Fatalf("attributes of %x became %x", m.payload, got)
		}
		_, _ = parseNotification(l)
		c := &Client{config: Config{EntityID: entityID}}
		c.isOurs(l)
		for _, a := range l {
			_ = a.text()
			_, _ = a.addr()
		}
	})
}
