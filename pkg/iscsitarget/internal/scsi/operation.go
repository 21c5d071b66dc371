package scsi

import "context"

// access is what a command needs of the medium; each level includes the ones
// before it.
type access uint8

const (
	noAccess     access = iota
	needsReady          // fails while the unit is stopped
	readsMedium         // fails, too, where acknowledged writes are lost
	writesMedium        // fails, too, where writes are refused
)

// noAction stands for an opcode without service actions.
const noAction = -1

// operation is a row of the command set: a column for each question that is
// asked of every command, and the handlers that are the command's own.
type operation struct {
	opcode byte
	// action is the service action in byte 1, or noAction.
	action int
	name   string
	access access
	// anyLUN: answered where no logical unit is, too.
	anyLUN bool
	// passes: processed ahead of a pending unit attention (SAM-5 section
	// 5.14).
	passes bool
	// unknown: not in the command set; decode says so.
	unknown bool
	// offered says whether the unit has the command; nil is yes.
	offered func(*Unit) bool
	// decode reads the CDB. It takes everything by value so that nothing is
	// allocated.
	decode func(request) Command
	// execute is set where decode may return kind Exec.
	execute func(context.Context, Command, []byte) ([]byte, Status)
}

// commandSet is every command, by opcode.
var commandSet = []operation{
	{opcode: 0x00, action: noAction, name: "TEST UNIT READY", access: needsReady, decode: decodeTestUnitReady},
	{opcode: 0x03, action: noAction, name: "REQUEST SENSE", anyLUN: true, passes: true, decode: decodeRequestSense},
	{opcode: 0x08, action: noAction, name: "READ(6)", access: readsMedium, decode: decodeRead6},
	{opcode: 0x0A, action: noAction, name: "WRITE(6)", access: writesMedium, decode: decodeWrite6},
	{opcode: 0x12, action: noAction, name: "INQUIRY", anyLUN: true, passes: true, decode: decodeInquiry},
	{opcode: 0x1A, action: noAction, name: "MODE SENSE(6)", decode: decodeModeSense6},
	{opcode: 0x1B, action: noAction, name: "START STOP UNIT", decode: decodeStartStopUnit, execute: executeStartStopUnit},
	{opcode: 0x25, action: noAction, name: "READ CAPACITY(10)", decode: decodeReadCapacity10},
	{opcode: 0x28, action: noAction, name: "READ(10)", access: readsMedium, decode: decodeRead},
	{opcode: 0x2A, action: noAction, name: "WRITE(10)", access: writesMedium, decode: decodeWrite},
	{opcode: 0x2E, action: noAction, name: "WRITE AND VERIFY(10)", access: writesMedium, decode: decodeWriteAndVerify},
	{opcode: 0x2F, action: noAction, name: "VERIFY(10)", access: readsMedium, decode: decodeVerify, execute: executeVerify},
	{opcode: 0x35, action: noAction, name: "SYNCHRONIZE CACHE(10)", access: readsMedium, decode: decodeSynchronizeCache, execute: executeSynchronizeCache},
	{opcode: 0x41, action: noAction, name: "WRITE SAME(10)", access: writesMedium, decode: decodeWriteSame10, execute: executeWriteSame},
	{opcode: 0x42, action: noAction, name: "UNMAP", access: writesMedium, offered: (*Unit).thin, decode: decodeUnmap, execute: executeUnmap},
	{opcode: 0x5A, action: noAction, name: "MODE SENSE(10)", decode: decodeModeSense10},
	{opcode: 0x88, action: noAction, name: "READ(16)", access: readsMedium, decode: decodeRead},
	{opcode: 0x8A, action: noAction, name: "WRITE(16)", access: writesMedium, decode: decodeWrite},
	{opcode: 0x8E, action: noAction, name: "WRITE AND VERIFY(16)", access: writesMedium, decode: decodeWriteAndVerify},
	{opcode: 0x8F, action: noAction, name: "VERIFY(16)", access: readsMedium, decode: decodeVerify, execute: executeVerify},
	{opcode: 0x91, action: noAction, name: "SYNCHRONIZE CACHE(16)", access: readsMedium, decode: decodeSynchronizeCache, execute: executeSynchronizeCache},
	{opcode: 0x93, action: noAction, name: "WRITE SAME(16)", access: writesMedium, decode: decodeWriteSame16, execute: executeWriteSame},
	{opcode: 0x9E, action: 0x10, name: "READ CAPACITY(16)", decode: decodeReadCapacity16},
	{opcode: 0xA0, action: noAction, name: "REPORT LUNS", anyLUN: true, passes: true, decode: decodeReportLUNs},
	{opcode: 0xA8, action: noAction, name: "READ(12)", access: readsMedium, decode: decodeRead},
	{opcode: 0xAA, action: noAction, name: "WRITE(12)", access: writesMedium, decode: decodeWrite},
	{opcode: 0xAE, action: noAction, name: "WRITE AND VERIFY(12)", access: writesMedium, decode: decodeWriteAndVerify},
	{opcode: 0xAF, action: noAction, name: "VERIFY(12)", access: readsMedium, decode: decodeVerify, execute: executeVerify},
}

// What is dispatched to where the command set has no row.
var (
	unknownOpcode = operation{unknown: true, decode: func(r request) Command {
		return r.fail(check(illegalRequest, ascInvalidOpcode))
	}}
	unknownAction = operation{unknown: true, decode: func(r request) Command {
		return r.fail(invalidField(1, 4))
	}}
)

// dispatch is the command set by opcode.
var dispatch = indexByOpcode(commandSet)

func indexByOpcode(set []operation) (index [256][]*operation) {
	for i := range set {
		op := &set[i]
		index[op.opcode] = append(index[op.opcode], op)
	}
	return index
}

// findOperation returns the row for a CDB; it is never nil.
func findOperation(cdb *[16]byte) *operation {
	rows := dispatch[cdb[0]]
	if len(rows) == 0 {
		return &unknownOpcode
	}
	for _, op := range rows {
		if op.action == noAction || op.action == int(cdb[1]&0x1F) {
			return op
		}
	}
	return &unknownAction
}
