package isns

import (
	"encoding/binary"
	"fmt"
)

// headerLen is the length of the header of an iSNSP PDU in bytes.
const headerLen = 12

// version is the only version of iSNSP (RFC 4171 section 5.1.1).
const version = 1

// header is that of an iSNSP PDU (RFC 4171 section 5.1).
type header [headerLen]byte

const (
	offVersion     = 0
	offFunction    = 2
	offLength      = 4
	offFlags       = 6
	offTransaction = 8
	offSequence    = 10
)

// flags of RFC 4171 section 5.1.4.
type flags uint16

const (
	fromClient flags = 1 << 15
	fromServer flags = 1 << 14
	replace    flags = 1 << 12 // of a registration: what the key names goes first
	lastPDU    flags = 1 << 11
	firstPDU   flags = 1 << 10
)

// function is a message's type (RFC 4171 section 4.1.3).
type function uint16

const (
	devAttrReg function = 0x0001
	devAttrQry function = 0x0002
	devGetNext function = 0x0003
	devDereg   function = 0x0004
	scnReg     function = 0x0005
	scnDereg   function = 0x0006
	scn        function = 0x0008
	esi        function = 0x000d

	// response is set in the function of an answer.
	response function = 0x8000
)

var functionNames = map[function]string{
	devAttrReg: "DevAttrReg",
	devAttrQry: "DevAttrQry",
	devGetNext: "DevGetNext",
	devDereg:   "DevDereg",
	scnReg:     "SCNReg",
	scnDereg:   "SCNDereg",
	scn:        "SCN",
	esi:        "ESI",
}

func (f function) String() string {
	name, ok := functionNames[f&^response]
	switch {
	case !ok:
		return fmt.Sprintf("function %#04x", uint16(f))
	case f&response != 0:
		return name + " response"
	}
	return name
}

func (h *header) version() uint16     { return be.Uint16(h[offVersion:]) }
func (h *header) function() function  { return function(be.Uint16(h[offFunction:])) }
func (h *header) length() int         { return int(be.Uint16(h[offLength:])) }
func (h *header) flags() flags        { return flags(be.Uint16(h[offFlags:])) }
func (h *header) transaction() uint16 { return be.Uint16(h[offTransaction:]) }
func (h *header) sequence() uint16    { return be.Uint16(h[offSequence:]) }

// appendHeader appends the header of a PDU with a payload of length bytes.
func appendHeader(b []byte, f function, length int, fl flags, transaction, sequence uint16) []byte {
	b = be.AppendUint16(b, version)
	b = be.AppendUint16(b, uint16(f))
	b = be.AppendUint16(b, uint16(length))
	b = be.AppendUint16(b, uint16(fl))
	b = be.AppendUint16(b, transaction)
	return be.AppendUint16(b, sequence)
}

var be = binary.BigEndian
