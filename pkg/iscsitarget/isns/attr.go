package isns

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
)

// errFormat is a message that is not what RFC 4171 section 5 makes of it.
var errFormat = errors.New("malformed iSNS message")

// tag names an attribute (RFC 4171 section 6.1).
type tag uint32

const (
	tagDelimiter          tag = 0
	tagEntityID           tag = 1
	tagEntityProtocol     tag = 2
	tagTimestamp          tag = 4
	tagRegistrationPeriod tag = 6 // seconds
	tagPortalAddr         tag = 16
	tagPortalPort         tag = 17
	tagESIInterval        tag = 19 // seconds
	tagESIPort            tag = 20
	tagSCNPort            tag = 23
	tagNodeName           tag = 32
	tagNodeType           tag = 33
	tagNodeAlias          tag = 34
	tagSCNBitmap          tag = 35
	tagPGNodeName         tag = 48
	tagPGAddr             tag = 49
	tagPGPort             tag = 50
	tagPGTag              tag = 51
)

// entityISCSI is the Entity Protocol of RFC 4171 section 6.2.2.
const entityISCSI = 2

// The node types of RFC 4171 section 6.4.2.
const (
	nodeTarget    = 1
	nodeInitiator = 2
)

// maxAttrs bounds the attributes of a message: an answer about all initiators
// of a large installation has a few for each.
const maxAttrs = 1 << 16

// attrHeader is the length of tag and length in bytes.
const attrHeader = 8

// attr is an attribute in TLV format (RFC 4171 section 5.3). Its value may
// lie in a message's payload.
type attr struct {
	tag   tag
	value []byte
}

// attrs are attributes in a message's order.
type attrs []attr

// none is the zero-length attribute: in a query it asks for a value.
func none(t tag) attr { return attr{tag: t} }

func number(t tag, v uint32) attr { return attr{t, be.AppendUint32(nil, v)} }

// text is s with one NUL at least, up to a multiple of four bytes.
func text(t tag, s string) attr {
	b := make([]byte, (len(s)/4+1)*4)
	copy(b, s)
	return attr{t, b}
}

// addr is an address as iSNS has it: of 16 bytes, an IPv4 one mapped.
func addr(t tag, a netip.Addr) attr {
	b := a.As16()
	return attr{t, b[:]}
}

func (a attr) append(b []byte) []byte {
	b = be.AppendUint32(b, uint32(a.tag))
	b = be.AppendUint32(b, uint32(len(a.value)))
	return append(b, a.value...)
}

func (l attrs) append(b []byte) []byte {
	for _, a := range l {
		b = a.append(b)
	}
	return b
}

// number is the value of an attribute of four bytes.
func (a attr) number() (uint32, error) {
	if len(a.value) != 4 {
		return 0, fmt.Errorf("%w: attribute %d has %d bytes, want 4", errFormat, a.tag, len(a.value))
	}
	return be.Uint32(a.value), nil
}

// text is the value up to its first NUL.
func (a attr) text() string {
	s, _, _ := bytes.Cut(a.value, []byte{0})
	return string(s)
}

func (a attr) addr() (netip.Addr, error) {
	v, ok := netip.AddrFromSlice(a.value)
	if !ok || len(a.value) != 16 {
		return netip.Addr{}, fmt.Errorf("%w: address of %d bytes, want 16", errFormat, len(a.value))
	}
	return v.Unmap(), nil
}

// find is the first attribute with tag t.
func (l attrs) find(t tag) (attr, bool) {
	for _, a := range l {
		if a.tag == t {
			return a, true
		}
	}
	return attr{}, false
}

// operating are the attributes behind the delimiter; all, where there is none.
func (l attrs) operating() attrs {
	for i, a := range l {
		if a.tag == tagDelimiter {
			return l[i+1:]
		}
	}
	return l
}

// parseAttrs cuts a payload into attributes, which stay in it.
func parseAttrs(b []byte) (attrs, error) {
	var l attrs
	for len(b) > 0 {
		if len(b) < attrHeader {
			return nil, fmt.Errorf("%w: %d bytes behind the last attribute", errFormat, len(b))
		}
		if len(l) == maxAttrs {
			return nil, fmt.Errorf("%w: more than %d attributes", errFormat, maxAttrs)
		}
		t, n := tag(be.Uint32(b)), be.Uint32(b[4:])
		b = b[attrHeader:]
		if uint64(n) > uint64(len(b)) || n%4 != 0 {
			return nil, fmt.Errorf("%w: attribute %d of %d bytes in a message with %d left", errFormat, t, n, len(b))
		}
		l = append(l, attr{t, b[:n:n]})
		b = b[n:]
	}
	return l, nil
}
