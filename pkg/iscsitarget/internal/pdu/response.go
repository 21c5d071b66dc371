package pdu

// The responses below carry no StatSN and no command window: the connection
// fills these in with SetStatSN and SetWindow when it sends the PDU.

// NopIn is a NOP-In (RFC 7143 section 11.19).
type NopIn struct {
	LUN      [8]byte
	ITT, TTT uint32
}

// ParseNopIn reads a NOP-In's header.
func ParseNopIn(h *BHS) NopIn {
	return NopIn{LUN: h.LUN(), ITT: h.ITT(), TTT: be.Uint32(h[offTTT:])}
}

// Header builds the header.
func (p NopIn) Header() (h BHS) {
	response(&h, OpNopIn, p.ITT)
	copy(h[offLUN:], p.LUN[:])
	be.PutUint32(h[offTTT:], p.TTT)
	return h
}

// Residual is what a command's transfer differed from what was expected by
// (RFC 7143 section 11.4.5).
type Residual struct {
	Overflow, Underflow bool
	Count               uint32 // bytes
}

// ResidualOf compares what a command transfers with what the initiator
// expected, both in bytes.
func ResidualOf(actual int64, expected uint32) Residual {
	switch d := actual - int64(expected); {
	case d > 0:
		return Residual{Overflow: true, Count: uint32(min(d, 0xffffffff))}
	case d < 0:
		return Residual{Underflow: true, Count: uint32(-d)}
	}
	return Residual{}
}

const (
	overflowBit  = 0x04
	underflowBit = 0x02
	offResidual  = 44
	offResponse  = 2
	offStatus    = 3
)

func (r Residual) put(h *BHS) {
	flag(&h[offFlags], overflowBit, r.Overflow)
	flag(&h[offFlags], underflowBit, r.Underflow)
	be.PutUint32(h[offResidual:], r.Count)
}

func parseResidual(h *BHS) Residual {
	return Residual{
		Overflow: h[offFlags]&overflowBit != 0, Underflow: h[offFlags]&underflowBit != 0,
		Count: be.Uint32(h[offResidual:]),
	}
}

// SCSIResponse is a SCSI Response (RFC 7143 section 11.4).
type SCSIResponse struct {
	Response  uint8 // 0: command completed at target, 1: target failure
	Status    uint8 // SAM status code
	ITT       uint32
	SNACKTag  uint32 // of the R-Data SNACK that the response answers, too
	ExpDataSN uint32 // how many R2Ts and Data-Ins the command had
	Residual  Residual
}

// ParseSCSIResponse reads a SCSI Response's header.
func ParseSCSIResponse(h *BHS) SCSIResponse {
	return SCSIResponse{
		Response: h[offResponse], Status: h[offStatus], ITT: h.ITT(), SNACKTag: be.Uint32(h[offTTT:]),
		ExpDataSN: be.Uint32(h[offDataSN:]), Residual: parseResidual(h),
	}
}

// Header builds the header.
func (p SCSIResponse) Header() (h BHS) {
	response(&h, OpSCSIResponse, p.ITT)
	h[offResponse], h[offStatus] = p.Response, p.Status
	be.PutUint32(h[offTTT:], p.SNACKTag)
	be.PutUint32(h[offDataSN:], p.ExpDataSN)
	p.Residual.put(&h)
	return h
}

// The responses to a task management function (RFC 7143 section 11.6.1); TMFSucceeded
// is RFC 7144's.
const (
	TMFComplete         = 0
	TMFTaskDoesNotExist = 1
	TMFLUNDoesNotExist  = 2
	TMFStillAllegiant   = 3
	TMFNoReassignment   = 4
	TMFNotSupported     = 5
	TMFNotAuthorized    = 6
	TMFSucceeded        = 7
	TMFRejected         = 255
)

// TaskManagementResponse is a Task Management Function Response (RFC 7143
// section 11.6).
type TaskManagementResponse struct {
	Response uint8
	// Additional is the additional response information of RFC 7144, which
	// QUERY ASYNCHRONOUS EVENT has.
	Additional [3]byte
	ITT        uint32
}

const offAdditional = 8

// ParseTaskManagementResponse reads the header.
func ParseTaskManagementResponse(h *BHS) TaskManagementResponse {
	return TaskManagementResponse{Response: h[offResponse], Additional: [3]byte(h[offAdditional:]), ITT: h.ITT()}
}

// Header builds the header.
func (p TaskManagementResponse) Header() (h BHS) {
	response(&h, OpTaskManagementResponse, p.ITT)
	h[offResponse] = p.Response
	copy(h[offAdditional:], p.Additional[:])
	return h
}

// LoginStatus is Status-Class and Status-Detail of a Login Response (RFC 7143
// section 11.13.5).
type LoginStatus uint16

// The login statuses that this target gives.
const (
	LoginSuccess            LoginStatus = 0x0000
	LoginMovedTemporarily   LoginStatus = 0x0101
	LoginMovedPermanently   LoginStatus = 0x0102
	LoginInitiatorError     LoginStatus = 0x0200
	LoginAuthFailure        LoginStatus = 0x0201
	LoginForbidden          LoginStatus = 0x0202
	LoginNotFound           LoginStatus = 0x0203
	LoginUnsupportedVersion LoginStatus = 0x0205
	LoginTooManyConnections LoginStatus = 0x0206
	LoginMissingParameter   LoginStatus = 0x0207
	LoginNoSessionType      LoginStatus = 0x0209
	LoginNoSession          LoginStatus = 0x020a
	LoginInvalidDuring      LoginStatus = 0x020b
	LoginTargetError        LoginStatus = 0x0300
	LoginServiceUnavailable LoginStatus = 0x0301
	LoginOutOfResources     LoginStatus = 0x0302
)

// LoginResponse is a Login Response (RFC 7143 section 11.13).
type LoginResponse struct {
	Transit, Continue bool
	CSG, NSG          uint8
	ISID              ISID
	TSIH              uint16
	ITT               uint32
	Status            LoginStatus
}

// ParseLoginResponse reads a Login Response's header.
func ParseLoginResponse(h *BHS) (p LoginResponse) {
	p = LoginResponse{
		Transit: h.Final(), Continue: h[offFlags]&continueBit != 0,
		CSG: h[offFlags] >> loginStageShift & loginStageMask, NSG: h[offFlags] & loginStageMask,
		TSIH: be.Uint16(h[offTSIH:]), ITT: h.ITT(),
		Status: LoginStatus(be.Uint16(h[offStatusClass:])),
	}
	copy(p.ISID[:], h[offISID:])
	return p
}

// Header builds the header. A refused login carries no stages.
func (p LoginResponse) Header() (h BHS) {
	response(&h, OpLoginResponse, p.ITT)
	h[offFlags] = 0
	if p.Status == LoginSuccess {
		h[offFlags] = p.CSG << loginStageShift
		if p.Transit {
			h[offFlags] |= finalBit | p.NSG
		}
		flag(&h[offFlags], continueBit, p.Continue)
	}
	copy(h[offISID:], p.ISID[:])
	be.PutUint16(h[offTSIH:], p.TSIH)
	be.PutUint16(h[offStatusClass:], uint16(p.Status))
	return h
}

// TextResponse is a Text Response (RFC 7143 section 11.11).
type TextResponse struct {
	Final, Continue bool
	LUN             [8]byte
	ITT, TTT        uint32
}

// ParseTextResponse reads a Text Response's header.
func ParseTextResponse(h *BHS) TextResponse {
	return TextResponse{
		Final: h.Final(), Continue: h[offFlags]&continueBit != 0, LUN: h.LUN(), ITT: h.ITT(), TTT: be.Uint32(h[offTTT:]),
	}
}

// Header builds the header.
func (p TextResponse) Header() (h BHS) {
	response(&h, OpTextResponse, p.ITT)
	h[offFlags] = 0
	flag(&h[offFlags], finalBit, p.Final)
	flag(&h[offFlags], continueBit, p.Continue)
	copy(h[offLUN:], p.LUN[:])
	be.PutUint32(h[offTTT:], p.TTT)
	return h
}

// DataIn is a SCSI Data-In (RFC 7143 section 11.7). With HasStatus it ends its
// command: Status and Residual count only then. With Acknowledge it is to be
// acknowledged by a SNACK of type DataACK, with its LUN and TTT: these count only
// then.
type DataIn struct {
	Final, HasStatus bool
	Acknowledge      bool
	LUN              [8]byte
	Status           uint8
	ITT, TTT         uint32
	DataSN           uint32
	BufferOffset     uint32
	Residual         Residual
}

const (
	dataInStatusBit = 0x01
	dataInAckBit    = 0x40
)

// ParseDataIn reads a Data-In's header.
func ParseDataIn(h *BHS) DataIn {
	return DataIn{
		Final: h.Final(), HasStatus: h[offFlags]&dataInStatusBit != 0, Acknowledge: h[offFlags]&dataInAckBit != 0,
		LUN: h.LUN(), Status: h[offStatus], ITT: h.ITT(), TTT: be.Uint32(h[offTTT:]),
		DataSN: be.Uint32(h[offDataSN:]), BufferOffset: be.Uint32(h[offBufferOffset:]), Residual: parseResidual(h),
	}
}

// Header builds the header.
func (p DataIn) Header() (h BHS) {
	response(&h, OpDataIn, p.ITT)
	h[offFlags] = 0
	flag(&h[offFlags], finalBit, p.Final)
	be.PutUint32(h[offTTT:], NoTag)
	be.PutUint32(h[offDataSN:], p.DataSN)
	be.PutUint32(h[offBufferOffset:], p.BufferOffset)
	if p.Acknowledge {
		h[offFlags] |= dataInAckBit
		copy(h[offLUN:], p.LUN[:])
		be.PutUint32(h[offTTT:], p.TTT)
	}
	if p.HasStatus {
		h[offFlags] |= dataInStatusBit
		h[offStatus] = p.Status
		p.Residual.put(&h)
	}
	return h
}

const (
	offTime2Wait   = 40
	offTime2Retain = 42
)

// LogoutResponse is a Logout Response (RFC 7143 section 11.15).
// Time2Wait and Time2Retain are seconds, and count only where the response is
// neither 1 nor that of a session that was closed.
type LogoutResponse struct {
	Response               uint8 // 0 closed, 1 CID not found, 2 recovery not supported
	ITT                    uint32
	Time2Wait, Time2Retain uint16
}

// ParseLogoutResponse reads a Logout Response's header.
func ParseLogoutResponse(h *BHS) LogoutResponse {
	return LogoutResponse{
		Response: h[offResponse], ITT: h.ITT(), Time2Wait: be.Uint16(h[offTime2Wait:]), Time2Retain: be.Uint16(h[offTime2Retain:]),
	}
}

// Header builds the header.
func (p LogoutResponse) Header() (h BHS) {
	response(&h, OpLogoutResponse, p.ITT)
	h[offResponse] = p.Response
	be.PutUint16(h[offTime2Wait:], p.Time2Wait)
	be.PutUint16(h[offTime2Retain:], p.Time2Retain)
	return h
}

// R2T is a Ready To Transfer (RFC 7143 section 11.8). Offset and Length are
// bytes.
type R2T struct {
	LUN            [8]byte
	ITT, TTT       uint32
	R2TSN          uint32
	Offset, Length uint32
}

// ParseR2T reads an R2T's header.
func ParseR2T(h *BHS) R2T {
	return R2T{
		LUN: h.LUN(), ITT: h.ITT(), TTT: be.Uint32(h[offTTT:]), R2TSN: be.Uint32(h[offDataSN:]),
		Offset: be.Uint32(h[offBufferOffset:]), Length: be.Uint32(h[offResidual:]),
	}
}

// Header builds the header.
func (p R2T) Header() (h BHS) {
	response(&h, OpR2T, p.ITT)
	copy(h[offLUN:], p.LUN[:])
	be.PutUint32(h[offTTT:], p.TTT)
	be.PutUint32(h[offDataSN:], p.R2TSN)
	be.PutUint32(h[offBufferOffset:], p.Offset)
	be.PutUint32(h[offResidual:], p.Length)
	return h
}

// The events of an Asynchronous Message (RFC 7143 section 11.9.1) that this
// target has.
const (
	AsyncRequestLogout  = 1 // Parameter3: seconds that the initiator has
	AsyncDropConnection = 2 // Parameter1: CID, Parameter2: Time2Wait, Parameter3: Time2Retain
	AsyncNegotiate      = 4 // Parameter3: seconds that the initiator has
	AsyncTasksAborted   = 5 // LUN: where all tasks of the session are ended
)

// AsyncMessage is an Asynchronous Message (RFC 7143 section 11.9).
type AsyncMessage struct {
	LUN                                [8]byte
	Event                              uint8
	Parameter1, Parameter2, Parameter3 uint16
}

const (
	offAsyncEvent = 36
	offParameter1 = 38
	offParameter2 = 40
	offParameter3 = 42
)

// ParseAsyncMessage reads an Asynchronous Message's header.
func ParseAsyncMessage(h *BHS) AsyncMessage {
	return AsyncMessage{
		LUN: h.LUN(), Event: h[offAsyncEvent], Parameter1: be.Uint16(h[offParameter1:]),
		Parameter2: be.Uint16(h[offParameter2:]), Parameter3: be.Uint16(h[offParameter3:]),
	}
}

// Header builds the header.
func (p AsyncMessage) Header() (h BHS) {
	response(&h, OpAsync, NoTag)
	copy(h[offLUN:], p.LUN[:])
	h[offAsyncEvent] = p.Event
	be.PutUint16(h[offParameter1:], p.Parameter1)
	be.PutUint16(h[offParameter2:], p.Parameter2)
	be.PutUint16(h[offParameter3:], p.Parameter3)
	return h
}

// The reasons of a Reject (RFC 7143 section 11.17.1).
const (
	RejectDataDigest       = 0x02
	RejectSNACK            = 0x03
	RejectProtocolError    = 0x04
	RejectNotSupported     = 0x05
	RejectImmediate        = 0x06
	RejectTaskInProgress   = 0x07
	RejectInvalidDataACK   = 0x08
	RejectInvalidField     = 0x09
	RejectLongOperation    = 0x0a
	RejectWaitingForLogout = 0x0c
)

// Reject is a Reject (RFC 7143 section 11.17); its data segment is the header
// that was refused.
type Reject struct{ Reason uint8 }

// ParseReject reads a Reject's header.
func ParseReject(h *BHS) Reject { return Reject{Reason: h[offResponse]} }

// Header builds the header.
func (p Reject) Header() (h BHS) {
	response(&h, OpReject, NoTag)
	h[offResponse] = p.Reason
	return h
}

func response(h *BHS, op Opcode, itt uint32) {
	h[offOpcode] = byte(op)
	h[offFlags] = finalBit
	be.PutUint32(h[offITT:], itt)
}
