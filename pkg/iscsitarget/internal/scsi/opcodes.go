package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// Values of REPORTING OPTIONS (SPC-4 section 6.35.1).
const (
	reportAll          = 0
	reportOpcode       = 1 // one without service actions
	reportAction       = 2 // one with service actions
	reportOpcodeAction = 3 // either
)

const (
	returnTimeouts   = 1 << 7 // RCTD
	timeoutsPresent  = 1 << 1 // CTDP of a command descriptor
	actionValid      = 1 << 0 // SERVACTV
	oneHasTimeouts   = 1 << 7 // CTDP of the one-command data
	opcodeAbsent     = 1      // SUPPORT: not supported
	opcodeStandard   = 3      // SUPPORT: as the standard has it
	timeoutsBytes    = 12
	managementBytes  = 4
	managementExtend = 16 // with REPD
)

// cdbUsage is the CDB USAGE DATA of a command: the opcode, then a bit for each
// bit of the CDB that is looked at.
func (op *operation) cdbUsage() []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(op.usage, " ", ""))
	if err != nil {
		panic("scsi: usage of " + op.name + ": " + err.Error()) // a test reads all of them
	}
	return append([]byte{op.opcode}, b...)
}

func (op *operation) in(u *Unit) bool { return op.offered == nil || op.offered(u) }

// decodeReportOpcodes is REPORT SUPPORTED OPERATION CODES, SPC-4 section 6.35.
func decodeReportOpcodes(r request) Command {
	opcode, action := r.cdb[3], int(binary.BigEndian.Uint16(r.cdb[4:]))
	var b []byte
	switch r.cdb[2] & 7 {
	case reportAll:
		b = r.itl.unit.allOpcodes(r.cdb[2]&returnTimeouts != 0)
	case reportOpcode:
		if hasActions(opcode) {
			return r.fail(invalidField(2, 2))
		}
		b = r.oneOpcode(opcode, noAction)
	case reportAction:
		if !hasActions(opcode) && len(dispatch[opcode]) > 0 {
			return r.fail(invalidField(2, 2))
		}
		b = r.oneOpcode(opcode, action)
	case reportOpcodeAction:
		if !hasActions(opcode) && action == 0 {
			action = noAction
		}
		b = r.oneOpcode(opcode, action)
	default:
		return r.fail(invalidField(2, 2))
	}
	return r.data(b, bigEndian(r.cdb[6:10]))
}

// hasActions says whether an opcode of the command set has service actions.
func hasActions(opcode byte) bool {
	rows := dispatch[opcode]
	return len(rows) > 0 && rows[0].action != noAction
}

// allOpcodes is the all_commands format.
func (u *Unit) allOpcodes(timeouts bool) []byte {
	b := make([]byte, 4)
	for _, rows := range dispatch {
		for _, op := range rows {
			if op.in(u) {
				b = op.appendDescriptor(b, timeouts)
			}
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// appendDescriptor appends a command descriptor (SPC-4 section 6.35.2).
func (op *operation) appendDescriptor(b []byte, timeouts bool) []byte {
	d := [8]byte{op.opcode, 7: byte(len(op.cdbUsage()))}
	if op.action != noAction {
		d[3], d[5] = byte(op.action), actionValid
	}
	if !timeouts {
		return append(b, d[:]...)
	}
	d[5] |= timeoutsPresent
	return appendTimeouts(append(b, d[:]...))
}

// oneOpcode is the one_command format.
func (r request) oneOpcode(opcode byte, action int) []byte {
	for _, op := range dispatch[opcode] {
		if op.action != action || !op.in(r.itl.unit) {
			continue
		}
		usage := op.cdbUsage()
		b := append([]byte{0, opcodeStandard, 0, byte(len(usage))}, usage...)
		if r.cdb[2]&returnTimeouts != 0 {
			b[1] |= oneHasTimeouts
			b = appendTimeouts(b)
		}
		return b
	}
	return []byte{0, opcodeAbsent, 0, 0}
}

// appendTimeouts appends a command timeouts descriptor (SPC-4 section 6.35.4)
// that names no times.
func appendTimeouts(b []byte) []byte {
	d := [timeoutsBytes]byte{0, timeoutsBytes - 2}
	return append(b, d[:]...)
}

// decodeReportManagement is REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS, SPC-4
// section 6.36: those that the nexus's transport offers.
func decodeReportManagement(r request) Command {
	const extended = 1 << 7 // REPD
	allocation := bigEndian(r.cdb[6:10])
	if allocation < managementBytes {
		return r.fail(invalidField(6, 7))
	}
	b := make([]byte, managementBytes, managementExtend)
	binary.BigEndian.PutUint16(b, uint16(r.nexus.config.Functions))
	if r.cdb[2]&extended != 0 {
		b = b[:managementExtend]
		b[3] = managementExtend - managementBytes
	}
	return r.data(b, allocation)
}
