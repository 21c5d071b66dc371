package pdu

// NopOut is a NOP-Out (RFC 7143 section 11.18).
type NopOut struct {
	Immediate        bool
	LUN              [8]byte
	ITT, TTT         uint32
	CmdSN, ExpStatSN uint32
}

// ParseNopOut reads a NOP-Out's header.
func ParseNopOut(h *BHS) NopOut {
	return NopOut{
		Immediate: h.Immediate(), LUN: h.LUN(), ITT: h.ITT(), TTT: be.Uint32(h[offTTT:]),
		CmdSN: h.CmdSN(), ExpStatSN: h.ExpStatSN(),
	}
}

// Header builds the header.
func (p NopOut) Header() (h BHS) {
	request(&h, OpNopOut, p.Immediate, p.ITT, p.CmdSN, p.ExpStatSN)
	h[offFlags] = finalBit
	copy(h[offLUN:], p.LUN[:])
	be.PutUint32(h[offTTT:], p.TTT)
	return h
}

// SCSICommand is a SCSI Command (RFC 7143 section 11.3).
type SCSICommand struct {
	Immediate, Final, Read, Write bool
	// Attr is the task attribute: 0 untagged, 1 simple, 2 ordered, 3 head of
	// queue, 4 ACA. The priority of RFC 7144 has no effect, and no field here.
	Attr             uint8
	LUN              [8]byte
	ITT              uint32
	ExpectedLength   uint32 // bytes
	CmdSN, ExpStatSN uint32
	CDB              [16]byte
}

const (
	commandReadBit  = 0x40
	commandWriteBit = 0x20
	offExpectedLen  = 20
	offCDB          = 32
)

// ParseSCSICommand reads a SCSI Command's header.
func ParseSCSICommand(h *BHS) (p SCSICommand) {
	p = SCSICommand{
		Immediate: h.Immediate(), Final: h.Final(),
		Read: h[offFlags]&commandReadBit != 0, Write: h[offFlags]&commandWriteBit != 0,
		Attr: h[offFlags] & 7, LUN: h.LUN(), ITT: h.ITT(), ExpectedLength: be.Uint32(h[offExpectedLen:]),
		CmdSN: h.CmdSN(), ExpStatSN: h.ExpStatSN(),
	}
	copy(p.CDB[:], h[offCDB:])
	return p
}

// Header builds the header.
func (p SCSICommand) Header() (h BHS) {
	request(&h, OpSCSICommand, p.Immediate, p.ITT, p.CmdSN, p.ExpStatSN)
	h[offFlags] = p.Attr & 7
	flag(&h[offFlags], finalBit, p.Final)
	flag(&h[offFlags], commandReadBit, p.Read)
	flag(&h[offFlags], commandWriteBit, p.Write)
	copy(h[offLUN:], p.LUN[:])
	be.PutUint32(h[offExpectedLen:], p.ExpectedLength)
	copy(h[offCDB:], p.CDB[:])
	return h
}

// The task management functions of RFC 7143 section 11.5.1, and those of RFC 7144,
// which are for iSCSIProtocolLevel 2.
const (
	AbortTask        = 1
	AbortTaskSet     = 2
	ClearACA         = 3
	ClearTaskSet     = 4
	LogicalUnitReset = 5
	TargetWarmReset  = 6
	TargetColdReset  = 7
	TaskReassign     = 8
	QueryTask        = 9
	QueryTaskSet     = 10
	ITNexusReset     = 11
	QueryAsyncEvent  = 12
)

// TaskManagement is a Task Management Function Request (RFC 7143 section 11.5).
type TaskManagement struct {
	Immediate        bool
	Function         uint8
	LUN              [8]byte
	ITT, RefTaskTag  uint32
	CmdSN, ExpStatSN uint32
	RefCmdSN         uint32
	// ExpDataSN is, in a TASK REASSIGN, the DataSN that the initiator expects next.
	ExpDataSN uint32
}

const (
	offRefTaskTag = 20
	offRefCmdSN   = 32
	offExpDataSN  = 36
)

// ParseTaskManagement reads a Task Management Function Request's header.
func ParseTaskManagement(h *BHS) TaskManagement {
	return TaskManagement{
		Immediate: h.Immediate(), Function: h[offFlags] & 0x7f, LUN: h.LUN(), ITT: h.ITT(),
		RefTaskTag: be.Uint32(h[offRefTaskTag:]), CmdSN: h.CmdSN(), ExpStatSN: h.ExpStatSN(),
		RefCmdSN: be.Uint32(h[offRefCmdSN:]), ExpDataSN: be.Uint32(h[offExpDataSN:]),
	}
}

// Header builds the header.
func (p TaskManagement) Header() (h BHS) {
	request(&h, OpTaskManagement, p.Immediate, p.ITT, p.CmdSN, p.ExpStatSN)
	h[offFlags] = finalBit | p.Function&0x7f
	copy(h[offLUN:], p.LUN[:])
	be.PutUint32(h[offRefTaskTag:], p.RefTaskTag)
	be.PutUint32(h[offRefCmdSN:], p.RefCmdSN)
	be.PutUint32(h[offExpDataSN:], p.ExpDataSN)
	return h
}

// The login stages (RFC 7143 section 11.12.3).
const (
	StageSecurity    = 0
	StageOperational = 1
	StageFullFeature = 3
)

// ISID is an initiator session ID (RFC 7143 section 11.12.5).
type ISID [6]byte

// LoginRequest is a Login Request (RFC 7143 section 11.12).
type LoginRequest struct {
	Transit, Continue bool
	CSG, NSG          uint8
	VersionMax        uint8
	VersionMin        uint8
	ISID              ISID
	TSIH, CID         uint16
	ITT               uint32
	CmdSN, ExpStatSN  uint32
}

const (
	offVersionMax    = 2
	offVersionMin    = 3 // Version-active in a response
	offISID          = 8
	offTSIH          = 14
	offCID           = 20
	offStatusClass   = 36
	offStatusDetail  = 37
	loginStageShift  = 2
	loginStageMask   = 3
	offLogoutReason  = offFlags
	logoutReasonMask = 0x7f
)

// ParseLoginRequest reads a Login Request's header.
func ParseLoginRequest(h *BHS) (p LoginRequest) {
	p = LoginRequest{
		Transit: h.Final(), Continue: h[offFlags]&continueBit != 0,
		CSG: h[offFlags] >> loginStageShift & loginStageMask, NSG: h[offFlags] & loginStageMask,
		VersionMax: h[offVersionMax], VersionMin: h[offVersionMin],
		TSIH: be.Uint16(h[offTSIH:]), CID: be.Uint16(h[offCID:]), ITT: h.ITT(),
		CmdSN: h.CmdSN(), ExpStatSN: h.ExpStatSN(),
	}
	copy(p.ISID[:], h[offISID:])
	return p
}

// Header builds the header.
func (p LoginRequest) Header() (h BHS) {
	request(&h, OpLoginRequest, true, p.ITT, p.CmdSN, p.ExpStatSN)
	h[offFlags] = p.CSG<<loginStageShift | p.NSG
	flag(&h[offFlags], finalBit, p.Transit)
	flag(&h[offFlags], continueBit, p.Continue)
	h[offVersionMax], h[offVersionMin] = p.VersionMax, p.VersionMin
	copy(h[offISID:], p.ISID[:])
	be.PutUint16(h[offTSIH:], p.TSIH)
	be.PutUint16(h[offCID:], p.CID)
	return h
}

// TextRequest is a Text Request (RFC 7143 section 11.10).
type TextRequest struct {
	Immediate, Final, Continue bool
	LUN                        [8]byte
	ITT, TTT                   uint32
	CmdSN, ExpStatSN           uint32
}

// ParseTextRequest reads a Text Request's header.
func ParseTextRequest(h *BHS) TextRequest {
	return TextRequest{
		Immediate: h.Immediate(), Final: h.Final(), Continue: h[offFlags]&continueBit != 0,
		LUN: h.LUN(), ITT: h.ITT(), TTT: be.Uint32(h[offTTT:]), CmdSN: h.CmdSN(), ExpStatSN: h.ExpStatSN(),
	}
}

// Header builds the header.
func (p TextRequest) Header() (h BHS) {
	request(&h, OpTextRequest, p.Immediate, p.ITT, p.CmdSN, p.ExpStatSN)
	flag(&h[offFlags], finalBit, p.Final)
	flag(&h[offFlags], continueBit, p.Continue)
	copy(h[offLUN:], p.LUN[:])
	be.PutUint32(h[offTTT:], p.TTT)
	return h
}

// DataOut is a SCSI Data-Out (RFC 7143 section 11.7).
type DataOut struct {
	Final        bool
	LUN          [8]byte
	ITT, TTT     uint32
	ExpStatSN    uint32
	DataSN       uint32
	BufferOffset uint32
}

const (
	offDataSN       = 36
	offBufferOffset = 40
)

// ParseDataOut reads a Data-Out's header.
func ParseDataOut(h *BHS) DataOut {
	return DataOut{
		Final: h.Final(), LUN: h.LUN(), ITT: h.ITT(), TTT: be.Uint32(h[offTTT:]), ExpStatSN: h.ExpStatSN(),
		DataSN: be.Uint32(h[offDataSN:]), BufferOffset: be.Uint32(h[offBufferOffset:]),
	}
}

// Header builds the header.
func (p DataOut) Header() (h BHS) {
	request(&h, OpDataOut, false, p.ITT, 0, p.ExpStatSN)
	flag(&h[offFlags], finalBit, p.Final)
	copy(h[offLUN:], p.LUN[:])
	be.PutUint32(h[offTTT:], p.TTT)
	be.PutUint32(h[offDataSN:], p.DataSN)
	be.PutUint32(h[offBufferOffset:], p.BufferOffset)
	return h
}

// The types of a SNACK Request (RFC 7143 section 11.16.1).
const (
	SNACKData    = 0 // Data-In or R2T
	SNACKStatus  = 1
	SNACKDataACK = 2
	SNACKRData   = 3
)

// SNACK is a SNACK Request (RFC 7143 section 11.16). TTT is the tag of the Data-In that
// a DataACK acknowledges, or the SNACK Tag of an R-Data SNACK.
type SNACK struct {
	Type                         uint8
	LUN                          [8]byte
	ITT, TTT                     uint32
	ExpStatSN, BegRun, RunLength uint32
}

const (
	snackTypeMask = 0x0f
	offBegRun     = 40
	offRunLength  = 44
)

// ParseSNACK reads a SNACK Request's header.
func ParseSNACK(h *BHS) SNACK {
	return SNACK{
		Type: h[offFlags] & snackTypeMask, LUN: h.LUN(), ITT: h.ITT(), TTT: be.Uint32(h[offTTT:]), ExpStatSN: h.ExpStatSN(),
		BegRun: be.Uint32(h[offBegRun:]), RunLength: be.Uint32(h[offRunLength:]),
	}
}

// Header builds the header.
func (p SNACK) Header() (h BHS) {
	request(&h, OpSNACK, false, p.ITT, 0, p.ExpStatSN)
	h[offFlags] = finalBit | p.Type&snackTypeMask
	copy(h[offLUN:], p.LUN[:])
	be.PutUint32(h[offTTT:], p.TTT)
	be.PutUint32(h[offBegRun:], p.BegRun)
	be.PutUint32(h[offRunLength:], p.RunLength)
	return h
}

// The logout reasons of RFC 7143 section 11.14.1.
const (
	LogoutCloseSession    = 0
	LogoutCloseConnection = 1
	LogoutForRecovery     = 2
)

// LogoutRequest is a Logout Request (RFC 7143 section 11.14).
type LogoutRequest struct {
	Immediate        bool
	Reason           uint8
	CID              uint16
	ITT              uint32
	CmdSN, ExpStatSN uint32
}

// ParseLogoutRequest reads a Logout Request's header.
func ParseLogoutRequest(h *BHS) LogoutRequest {
	return LogoutRequest{
		Immediate: h.Immediate(), Reason: h[offLogoutReason] & logoutReasonMask, CID: be.Uint16(h[offCID:]),
		ITT: h.ITT(), CmdSN: h.CmdSN(), ExpStatSN: h.ExpStatSN(),
	}
}

// Header builds the header.
func (p LogoutRequest) Header() (h BHS) {
	request(&h, OpLogoutRequest, p.Immediate, p.ITT, p.CmdSN, p.ExpStatSN)
	h[offLogoutReason] = finalBit | p.Reason
	be.PutUint16(h[offCID:], p.CID)
	return h
}

func request(h *BHS, op Opcode, immediate bool, itt, cmdSN, expStatSN uint32) {
	h[offOpcode] = byte(op)
	flag(&h[offOpcode], immediateBit, immediate)
	be.PutUint32(h[offITT:], itt)
	be.PutUint32(h[offCmdSN:], cmdSN)
	be.PutUint32(h[offExpStatSN:], expStatSN)
}
