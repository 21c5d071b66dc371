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
	// usage says in hexadecimal which bits of the CDB behind the opcode are
	// looked at (SPC-4 section 6.35.3); its length is the CDB's.
	usage  string
	access access
	// allowed: under which reservations of another nexus.
	allowed allowance
	// anyLUN: answered where no logical unit is, too.
	anyLUN bool
	// passes: processed ahead of a pending unit attention (SAM-5 section
	// 5.14).
	passes bool
	// passesChore: processed while SANITIZE or FORMAT UNIT goes over the
	// medium, as all that passes a unit attention is.
	passesChore bool
	// anyState: processed in every asymmetric access state; standby: in that
	// one.
	anyState, standby bool
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
	{opcode: 0x00, action: noAction, name: "TEST UNIT READY", usage: "00 000000 04", access: needsReady, allowed: underPersistent, decode: decodeTestUnitReady},
	{opcode: 0x03, action: noAction, name: "REQUEST SENSE", usage: "01 0000 FF 04", allowed: underAny, anyLUN: true, passes: true, decode: decodeRequestSense},
	{opcode: 0x04, action: noAction, name: "FORMAT UNIT", usage: "FF 000000 04", allowed: underNone, passesChore: true, decode: decodeFormatUnit, execute: executeFormatUnit},
	{opcode: 0x08, action: noAction, name: "READ(6)", usage: "1FFFFF FF 04", access: readsMedium, allowed: underWriteExclusive, decode: decodeRead6},
	{opcode: 0x0A, action: noAction, name: "WRITE(6)", usage: "1FFFFF FF 04", access: writesMedium, allowed: underNone, decode: decodeWrite6},
	{opcode: 0x12, action: noAction, name: "INQUIRY", usage: "01 FF FFFF 04", allowed: underAny, anyLUN: true, passes: true, decode: decodeInquiry},
	{opcode: 0x15, action: noAction, name: "MODE SELECT(6)", usage: "11 0000 FF 04", allowed: underNone, standby: true, decode: decodeModeSelect6, execute: executeModeSelect},
	{opcode: 0x16, action: noAction, name: "RESERVE(6)", usage: "00 0000 00 04", allowed: byOwnRules, decode: decodeReserve6, execute: executeReserve},
	{opcode: 0x17, action: noAction, name: "RELEASE(6)", usage: "00 0000 00 04", allowed: byOwnRules, decode: decodeReserve6, execute: executeRelease},
	{opcode: 0x1A, action: noAction, name: "MODE SENSE(6)", usage: "08 FF FF FF 04", allowed: underWriteExclusive, standby: true, decode: decodeModeSense6},
	{opcode: 0x1B, action: noAction, name: "START STOP UNIT", usage: "01 00 0F F7 04", allowed: underPersistentToStart, decode: decodeStartStopUnit, execute: executeStartStopUnit},
	{opcode: 0x1D, action: noAction, name: "SEND DIAGNOSTIC", usage: "E7 00 FFFF 04", allowed: underNone, decode: decodeSendDiagnostic, execute: executeSendDiagnostic},
	{opcode: 0x1E, action: noAction, name: "PREVENT ALLOW MEDIUM REMOVAL", usage: "00 0000 03 04", access: needsReady, allowed: underNone, decode: decodePreventAllow},
	{opcode: 0x25, action: noAction, name: "READ CAPACITY(10)", usage: "00 FFFFFFFF 0000 01 04", allowed: underAny, decode: decodeReadCapacity10},
	{opcode: 0x28, action: noAction, name: "READ(10)", usage: "F8 FFFFFFFF 00 FFFF 04", access: readsMedium, allowed: underWriteExclusive, decode: decodeRead},
	{opcode: 0x2A, action: noAction, name: "WRITE(10)", usage: "F8 FFFFFFFF 00 FFFF 04", access: writesMedium, allowed: underNone, decode: decodeWrite},
	{opcode: 0x2E, action: noAction, name: "WRITE AND VERIFY(10)", usage: "F6 FFFFFFFF 00 FFFF 04", access: writesMedium, allowed: underNone, decode: decodeWriteAndVerify},
	{opcode: 0x2F, action: noAction, name: "VERIFY(10)", usage: "F6 FFFFFFFF 00 FFFF 04", access: readsMedium, allowed: underWriteExclusive, decode: decodeVerify, execute: executeVerify},
	{opcode: 0x34, action: noAction, name: "PRE-FETCH(10)", usage: "02 FFFFFFFF 00 FFFF 04", access: readsMedium, allowed: underWriteExclusive, decode: decodePrefetch, execute: executePrefetch},
	{opcode: 0x35, action: noAction, name: "SYNCHRONIZE CACHE(10)", usage: "02 FFFFFFFF 00 FFFF 04", access: readsMedium, allowed: underNone, decode: decodeSynchronizeCache, execute: executeSynchronizeCache},
	{opcode: 0x37, action: noAction, name: "READ DEFECT DATA(10)", usage: "00 1F 00000000 FFFF 04", access: needsReady, allowed: underWriteExclusive, decode: decodeReadDefects10},
	{opcode: 0x41, action: noAction, name: "WRITE SAME(10)", usage: "F8 FFFFFFFF 00 FFFF 04", access: writesMedium, allowed: underNone, decode: decodeWriteSame10, execute: executeWriteSame},
	{opcode: 0x42, action: noAction, name: "UNMAP", usage: "01 00000000 00 FFFF 04", access: writesMedium, allowed: underNone, offered: (*Unit).thin, decode: decodeUnmap, execute: executeUnmap},
	{opcode: 0x48, action: sanitizeOverwrite, name: "SANITIZE", usage: "A1 0000000000 FFFF 04", allowed: underNone, passesChore: true, decode: decodeOverwrite, execute: executeOverwrite},
	{opcode: 0x48, action: sanitizeBlockErase, name: "SANITIZE", usage: "A2 0000000000 FFFF 04", allowed: underNone, passesChore: true, decode: decodeBlockErase, execute: executeBlockErase},
	{opcode: 0x48, action: sanitizeExitFailure, name: "SANITIZE", usage: "BF 0000000000 FFFF 04", allowed: underNone, passesChore: true, decode: decodeExitFailure, execute: executeExitFailure},
	{opcode: 0x4D, action: noAction, name: "LOG SENSE", usage: "00 FF FF 00 FFFF FFFF 04", allowed: underPersistent, standby: true, decode: decodeLogSense, execute: executeLogSense},
	{opcode: 0x55, action: noAction, name: "MODE SELECT(10)", usage: "11 0000000000 FFFF 04", allowed: underNone, standby: true, decode: decodeModeSelect10, execute: executeModeSelect},
	{opcode: 0x56, action: noAction, name: "RESERVE(10)", usage: "10 00000000 00 0000 04", allowed: byOwnRules, decode: decodeReserve10, execute: executeReserve},
	{opcode: 0x57, action: noAction, name: "RELEASE(10)", usage: "10 00000000 00 0000 04", allowed: byOwnRules, decode: decodeReserve10, execute: executeRelease},
	{opcode: 0x5A, action: noAction, name: "MODE SENSE(10)", usage: "18 FF FF 000000 FFFF 04", allowed: underWriteExclusive, standby: true, decode: decodeModeSense10},
	{opcode: 0x5E, action: 0x00, name: "PERSISTENT RESERVE IN, READ KEYS", usage: "00 00 00000000 FFFF 04", allowed: underPersistent, standby: true, decode: decodeReadKeys},
	{opcode: 0x5E, action: 0x01, name: "PERSISTENT RESERVE IN, READ RESERVATION", usage: "01 00 00000000 FFFF 04", allowed: underPersistent, standby: true, decode: decodeReadReservation},
	{opcode: 0x5E, action: 0x02, name: "PERSISTENT RESERVE IN, REPORT CAPABILITIES", usage: "02 00 00000000 FFFF 04", allowed: underPersistent, standby: true, decode: decodeReportCapabilities},
	{opcode: 0x5E, action: 0x03, name: "PERSISTENT RESERVE IN, READ FULL STATUS", usage: "03 00 00000000 FFFF 04", allowed: underPersistent, standby: true, decode: decodeReadFullStatus},
	{opcode: 0x5F, action: actionRegister, name: "PERSISTENT RESERVE OUT, REGISTER", usage: "00 00 0000 FFFFFFFF 04", allowed: byOwnRules, standby: true, decode: decodeReserveOut, execute: executeReserveOut},
	{opcode: 0x5F, action: actionReserve, name: "PERSISTENT RESERVE OUT, RESERVE", usage: "01 FF 0000 FFFFFFFF 04", allowed: byOwnRules, standby: true, decode: decodeReserveOut, execute: executeReserveOut},
	{opcode: 0x5F, action: actionRelease, name: "PERSISTENT RESERVE OUT, RELEASE", usage: "02 FF 0000 FFFFFFFF 04", allowed: byOwnRules, standby: true, decode: decodeReserveOut, execute: executeReserveOut},
	{opcode: 0x5F, action: actionClear, name: "PERSISTENT RESERVE OUT, CLEAR", usage: "03 00 0000 FFFFFFFF 04", allowed: byOwnRules, standby: true, decode: decodeReserveOut, execute: executeReserveOut},
	{opcode: 0x5F, action: actionPreempt, name: "PERSISTENT RESERVE OUT, PREEMPT", usage: "04 FF 0000 FFFFFFFF 04", allowed: byOwnRules, standby: true, decode: decodeReserveOut, execute: executeReserveOut},
	{opcode: 0x5F, action: actionPreemptAndAbort, name: "PERSISTENT RESERVE OUT, PREEMPT AND ABORT", usage: "05 FF 0000 FFFFFFFF 04", allowed: byOwnRules, standby: true, decode: decodeReserveOut, execute: executeReserveOut},
	{opcode: 0x5F, action: actionRegisterIgnore, name: "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", usage: "06 00 0000 FFFFFFFF 04", allowed: byOwnRules, standby: true, decode: decodeReserveOut, execute: executeReserveOut},
	{opcode: 0x5F, action: actionRegisterMove, name: "PERSISTENT RESERVE OUT, REGISTER AND MOVE", usage: "07 00 0000 FFFFFFFF 04", allowed: byOwnRules, standby: true, decode: decodeReserveOut, execute: executeReserveOut},
	{opcode: 0x83, action: actionExtendedCopy1, name: "EXTENDED COPY(LID1)", usage: "00 0000000000000000 FFFFFFFF 00 04", access: needsReady, allowed: underNone, decode: decodeExtendedCopy, execute: executeExtendedCopy},
	{opcode: 0x83, action: actionExtendedCopy4, name: "EXTENDED COPY(LID4)", usage: "01 0000000000000000 FFFFFFFF 00 04", access: needsReady, allowed: underNone, decode: decodeExtendedCopy, execute: executeExtendedCopy},
	{opcode: 0x83, action: actionPopulateToken, name: "POPULATE TOKEN", usage: "10 00000000 FFFFFFFF FFFFFFFF 00 04", access: readsMedium, allowed: underNone, decode: decodePopulateToken, execute: executePopulateToken},
	{opcode: 0x83, action: actionWriteToken, name: "WRITE USING TOKEN", usage: "11 00000000 FFFFFFFF FFFFFFFF 00 04", access: writesMedium, allowed: underNone, decode: decodeWriteToken, execute: executeWriteToken},
	{opcode: 0x83, action: actionCopyAbort, name: "COPY OPERATION ABORT", usage: "1C FFFFFFFF 0000000000000000 00 04", allowed: underNone, decode: decodeCopyAbort},
	{opcode: 0x84, action: actionCopyStatus1, name: "RECEIVE COPY STATUS(LID1)", usage: "00 FF 00000000000000 FFFFFFFF 00 04", allowed: underNone, decode: decodeCopyStatus1},
	{opcode: 0x84, action: actionCopyData, name: "RECEIVE COPY DATA(LID1)", usage: "01 FF 00000000000000 FFFFFFFF 00 04", allowed: underNone, decode: decodeCopyData},
	{opcode: 0x84, action: actionCopyLimits, name: "RECEIVE COPY OPERATING PARAMETERS", usage: "03 0000000000000000 FFFFFFFF 00 04", allowed: underNone, decode: decodeCopyLimits},
	{opcode: 0x84, action: actionCopyFailure, name: "RECEIVE COPY FAILURE DETAILS(LID1)", usage: "04 FF 00000000000000 FFFFFFFF 00 04", allowed: underNone, decode: decodeCopyFailure},
	{opcode: 0x84, action: actionCopyStatus4, name: "RECEIVE COPY STATUS(LID4)", usage: "05 FFFFFFFF 00000000 FFFFFFFF 00 04", allowed: underNone, decode: decodeCopyStatus4},
	{opcode: 0x84, action: actionTokenInfo, name: "RECEIVE ROD TOKEN INFORMATION", usage: "07 FFFFFFFF 00000000 FFFFFFFF 00 04", allowed: underNone, decode: decodeTokenInfo},
	{opcode: 0x84, action: actionReportTokens, name: "REPORT ALL ROD TOKENS", usage: "08 0000000000000000 FFFFFFFF 00 04", allowed: underNone, decode: decodeReportTokens},
	{opcode: 0x88, action: noAction, name: "READ(16)", usage: "F8 FFFFFFFFFFFFFFFF FFFFFFFF 00 04", access: readsMedium, allowed: underWriteExclusive, decode: decodeRead},
	{opcode: 0x89, action: noAction, name: "COMPARE AND WRITE", usage: "F8 FFFFFFFFFFFFFFFF 000000 FF 00 04", access: writesMedium, allowed: underNone, decode: decodeCompareAndWrite, execute: executeCompareAndWrite},
	{opcode: 0x8A, action: noAction, name: "WRITE(16)", usage: "F8 FFFFFFFFFFFFFFFF FFFFFFFF 00 04", access: writesMedium, allowed: underNone, decode: decodeWrite},
	{opcode: 0x8B, action: noAction, name: "ORWRITE(16)", usage: "F8 FFFFFFFFFFFFFFFF FFFFFFFF 00 04", access: writesMedium, allowed: underNone, decode: decodeORWrite},
	{opcode: 0x8E, action: noAction, name: "WRITE AND VERIFY(16)", usage: "F6 FFFFFFFFFFFFFFFF FFFFFFFF 00 04", access: writesMedium, allowed: underNone, decode: decodeWriteAndVerify},
	{opcode: 0x8F, action: noAction, name: "VERIFY(16)", usage: "F6 FFFFFFFFFFFFFFFF FFFFFFFF 00 04", access: readsMedium, allowed: underWriteExclusive, decode: decodeVerify, execute: executeVerify},
	{opcode: 0x90, action: noAction, name: "PRE-FETCH(16)", usage: "02 FFFFFFFFFFFFFFFF FFFFFFFF 00 04", access: readsMedium, allowed: underWriteExclusive, decode: decodePrefetch, execute: executePrefetch},
	{opcode: 0x91, action: noAction, name: "SYNCHRONIZE CACHE(16)", usage: "02 FFFFFFFFFFFFFFFF FFFFFFFF 00 04", access: readsMedium, allowed: underNone, decode: decodeSynchronizeCache, execute: executeSynchronizeCache},
	{opcode: 0x93, action: noAction, name: "WRITE SAME(16)", usage: "F9 FFFFFFFFFFFFFFFF FFFFFFFF 00 04", access: writesMedium, allowed: underNone, decode: decodeWriteSame16, execute: executeWriteSame},
	{opcode: 0x9C, action: noAction, name: "WRITE ATOMIC(16)", usage: "F8 FFFFFFFFFFFFFFFF FFFF FFFF 00 04", access: writesMedium, allowed: underNone, offered: (*Unit).writesAtomic, decode: decodeWriteAtomic, execute: executeWriteAtomic},
	{opcode: 0x9E, action: 0x10, name: "READ CAPACITY(16)", usage: "10 0000000000000000 FFFFFFFF 00 04", allowed: underAny, decode: decodeReadCapacity16},
	{opcode: 0x9E, action: 0x12, name: "GET LBA STATUS", usage: "12 FFFFFFFFFFFFFFFF FFFFFFFF 00 04", access: readsMedium, allowed: underWriteExclusive, offered: (*Unit).maps, decode: decodeLBAStatus, execute: executeLBAStatus},
	{opcode: 0xA0, action: noAction, name: "REPORT LUNS", usage: "00 FF 000000 FFFFFFFF 00 04", allowed: underAny, anyLUN: true, passes: true, decode: decodeReportLUNs},
	{opcode: 0xA3, action: 0x0A, name: "REPORT TARGET PORT GROUPS", usage: "EA 00000000 FFFFFFFF 00 04", allowed: underPersistent, anyState: true, decode: decodeReportGroups},
	{opcode: 0xA3, action: 0x0C, name: "REPORT SUPPORTED OPERATION CODES", usage: "0C 87 FF FFFF FFFFFFFF 00 04", allowed: underWriteExclusive, decode: decodeReportOpcodes},
	{opcode: 0xA3, action: 0x0D, name: "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", usage: "0D 80 00 0000 FFFFFFFF 00 04", allowed: underWriteExclusive, decode: decodeReportManagement},
	{opcode: 0xA3, action: 0x0F, name: "REPORT TIMESTAMP", usage: "0F 00000000 FFFFFFFF 00 04", allowed: underPersistent, decode: decodeReportTimestamp},
	{opcode: 0xA4, action: 0x0A, name: "SET TARGET PORT GROUPS", usage: "0A 00000000 FFFFFFFF 00 04", allowed: underNone, anyState: true, decode: decodeSetGroups, execute: executeSetGroups},
	{opcode: 0xA4, action: 0x0F, name: "SET TIMESTAMP", usage: "0F 00000000 FFFFFFFF 00 04", allowed: underNone, decode: decodeSetTimestamp, execute: executeSetTimestamp},
	{opcode: 0xA8, action: noAction, name: "READ(12)", usage: "F8 FFFFFFFF FFFFFFFF 00 04", access: readsMedium, allowed: underWriteExclusive, decode: decodeRead},
	{opcode: 0xAA, action: noAction, name: "WRITE(12)", usage: "F8 FFFFFFFF FFFFFFFF 00 04", access: writesMedium, allowed: underNone, decode: decodeWrite},
	{opcode: 0xAE, action: noAction, name: "WRITE AND VERIFY(12)", usage: "F6 FFFFFFFF FFFFFFFF 00 04", access: writesMedium, allowed: underNone, decode: decodeWriteAndVerify},
	{opcode: 0xAF, action: noAction, name: "VERIFY(12)", usage: "F6 FFFFFFFF FFFFFFFF 00 04", access: readsMedium, allowed: underWriteExclusive, decode: decodeVerify, execute: executeVerify},
	{opcode: 0xB7, action: noAction, name: "READ DEFECT DATA(12)", usage: "1F 00000000 FFFFFFFF 00 04", access: needsReady, allowed: underWriteExclusive, decode: decodeReadDefects12},
}

// absent is the status of a command that the unit has not.
func (op *operation) absent() Status {
	if op.action != noAction {
		return invalidField(1, 4)
	}
	return check(illegalRequest, ascInvalidOpcode)
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

// dispatch is the command set by opcode. It is filled by init, because a command
// reports it.
var dispatch [256][]*operation

func init() { dispatch = indexByOpcode(commandSet) }

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
