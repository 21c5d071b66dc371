// Package pdu is the wire format of iSCSI PDUs (RFC 7143 section 11): fixed
// headers as arrays with named offsets, one struct for each PDU type, and the
// framer, which alone touches the connection.
//
// Not here yet: SNACK, and additional header segments beyond their length (they
// are read and handed on as bytes).
package pdu

import "encoding/binary"

// BHSLen is the length of a basic header segment in bytes.
const BHSLen = 48

// NoTag is the reserved value of an Initiator or Target Task Tag.
const NoTag = 0xffffffff

// BHS is a basic header segment (RFC 7143 section 11.2.1).
type BHS [BHSLen]byte

// Opcode is the low six bits of a BHS's first byte (RFC 7143 section 11.2.1.2).
type Opcode uint8

// The opcodes of RFC 7143.
const (
	OpNopOut         Opcode = 0x00
	OpSCSICommand    Opcode = 0x01
	OpTaskManagement Opcode = 0x02
	OpLoginRequest   Opcode = 0x03
	OpTextRequest    Opcode = 0x04
	OpDataOut        Opcode = 0x05
	OpLogoutRequest  Opcode = 0x06
	OpSNACK          Opcode = 0x10

	OpNopIn                  Opcode = 0x20
	OpSCSIResponse           Opcode = 0x21
	OpTaskManagementResponse Opcode = 0x22
	OpLoginResponse          Opcode = 0x23
	OpTextResponse           Opcode = 0x24
	OpDataIn                 Opcode = 0x25
	OpLogoutResponse         Opcode = 0x26
	OpR2T                    Opcode = 0x31
	OpAsync                  Opcode = 0x32
	OpReject                 Opcode = 0x3f
)

// Offsets that most PDU types share.
const (
	offOpcode    = 0
	offFlags     = 1
	offAHSLen    = 4
	offDataLen   = 5 // three bytes
	offLUN       = 8
	offITT       = 16
	offTTT       = 20
	offCmdSN     = 24 // requests; StatSN in responses
	offStatSN    = 24
	offExpStatSN = 28 // requests; ExpCmdSN in responses
	offExpCmdSN  = 28
	offMaxCmdSN  = 32
)

const (
	immediateBit = 0x40
	finalBit     = 0x80
	continueBit  = 0x40
)

// Opcode returns the PDU's type.
func (h *BHS) Opcode() Opcode { return Opcode(h[offOpcode] & 0x3f) }

// Immediate says whether a request is to be delivered immediately.
func (h *BHS) Immediate() bool { return h[offOpcode]&immediateBit != 0 }

// Final returns the F bit (the T bit of a login PDU).
func (h *BHS) Final() bool { return h[offFlags]&finalBit != 0 }

// AHSLen is the length of all additional header segments in bytes.
func (h *BHS) AHSLen() int { return int(h[offAHSLen]) * 4 }

// DataLen is DataSegmentLength: bytes, without padding.
func (h *BHS) DataLen() int { return int(uint24(h[offDataLen:])) }

// SetDataLen sets DataSegmentLength; n must be below 1<<24.
func (h *BHS) SetDataLen(n int) { putUint24(h[offDataLen:], uint32(n)) }

// ITT is the Initiator Task Tag.
func (h *BHS) ITT() uint32 { return be.Uint32(h[offITT:]) }

// CmdSN is the command sequence number of a request.
func (h *BHS) CmdSN() uint32 { return be.Uint32(h[offCmdSN:]) }

// ExpStatSN is the next status that the initiator of a request expects.
func (h *BHS) ExpStatSN() uint32 { return be.Uint32(h[offExpStatSN:]) }

// LUN is the eight-byte logical unit number field.
func (h *BHS) LUN() (lun [8]byte) {
	copy(lun[:], h[offLUN:])
	return lun
}

// SetWindow fills in ExpCmdSN and MaxCmdSN of a response.
func (h *BHS) SetWindow(expCmdSN, maxCmdSN uint32) {
	be.PutUint32(h[offExpCmdSN:], expCmdSN)
	be.PutUint32(h[offMaxCmdSN:], maxCmdSN)
}

// SetStatSN fills in StatSN of a response.
func (h *BHS) SetStatSN(sn uint32) { be.PutUint32(h[offStatSN:], sn) }

// StatSN is the status sequence number of a response.
func (h *BHS) StatSN() uint32 { return be.Uint32(h[offStatSN:]) }

// Window returns ExpCmdSN and MaxCmdSN of a response.
func (h *BHS) Window() (expCmdSN, maxCmdSN uint32) {
	return be.Uint32(h[offExpCmdSN:]), be.Uint32(h[offMaxCmdSN:])
}

var be = binary.BigEndian

func uint24(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }

func putUint24(b []byte, v uint32) { b[0], b[1], b[2] = byte(v>>16), byte(v>>8), byte(v) }

func flag(b *byte, bit byte, on bool) {
	if on {
		*b |= bit
	}
}

// Pad is the number of zero bytes after a segment of n bytes.
func Pad(n int) int { return -n & 3 }
