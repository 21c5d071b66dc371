package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// An iSCSI TransportID, SPC-4 section 7.6.4.6, has the protocol identifier in its
// first byte.
const (
	// Values of FORMAT CODE.
	formatNode = 0 // an iSCSI name
	formatPort = 1 // an initiator port's name
	// portSeparator is between the iSCSI name and the ISID.
	portSeparator = ",i,0x"
	isidBits      = 48

	transportHeader   = 4
	transportMinBytes = 20  // of ADDITIONAL LENGTH
	maxNodeName       = 223 // RFC 7143 section 4.2.7.1
)

// transportID is an initiator port, or all ports of an initiator.
type transportID struct {
	node string
	// port is empty where all of the node's ports are meant.
	port string
}

// parseTransportID reads the first TransportID of a list.
func parseTransportID(b []byte) (id transportID, rest []byte, ok bool) {
	if len(b) < transportHeader || b[0]&0x0F != protocolISCSI>>4 {
		return id, nil, false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < transportMinBytes || n%4 != 0 || n > len(b)-transportHeader {
		return id, nil, false
	}
	text, _, terminated := bytes.Cut(b[transportHeader:transportHeader+n], []byte{0})
	if !terminated {
		return id, nil, false
	}
	switch b[0] >> 6 {
	case formatNode:
		id.node, ok = strings.ToLower(string(text)), true
	case formatPort:
		id, ok = parsePort(strings.ToLower(string(text)))
	}
	ok = ok && id.node != "" && len(id.node) <= maxNodeName && !strings.Contains(id.node, ",")
	return id, b[transportHeader+n:], ok
}

// parsePort reads an initiator port's name, and writes it as sessions do: with
// twelve digits.
func parsePort(text string) (transportID, bool) {
	node, digits, found := strings.Cut(text, portSeparator)
	isid, err := strconv.ParseUint(digits, 16, isidBits)
	if !found || err != nil || len(digits) > isidBits/4 {
		return transportID{}, false
	}
	return transportID{node, fmt.Sprintf("%s%s%012x", node, portSeparator, isid)}, true
}

// appendTransportID appends the TransportID of an initiator port.
func appendTransportID(b []byte, port string) []byte {
	n := max((len(port)+1+3)&^3, transportMinBytes)
	b = append(b, formatPort<<6|protocolISCSI>>4, 0, byte(n>>8), byte(n))
	b = append(b, port...)
	return append(b, make([]byte, n-len(port))...)
}
