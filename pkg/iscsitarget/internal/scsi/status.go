package scsi

// Status codes of SAM-5 section 5.3.1.
const (
	Good                byte = 0x00
	CheckCondition      byte = 0x02
	Busy                byte = 0x08
	ReservationConflict byte = 0x18
	TaskSetFull         byte = 0x28
	ACAActive           byte = 0x30
	TaskAborted         byte = 0x40
)

// Status is a SCSI status with its sense data, by value. The zero value is
// GOOD.
type Status struct {
	code  byte
	sense sense
}

// What the layer above answers with on its own account.
var (
	StatusGood        = Status{code: Good}
	StatusBusy        = Status{code: Busy}
	StatusTaskSetFull = Status{code: TaskSetFull}
	StatusACAActive   = Status{code: ACAActive}
	StatusTaskAborted = Status{code: TaskAborted}

	StatusReservationConflict = Status{code: ReservationConflict}

	// SenseUnexpectedUnsolicitedData and the two below it are what RFC 7143
	// section 11.4.7.2 asks for.
	SenseUnexpectedUnsolicitedData = check(abortedCommand, 0x0C0C)
	SenseNotEnoughUnsolicitedData  = check(abortedCommand, 0x0C0D)
	SenseProtocolCRC               = check(abortedCommand, 0x4705)

	// SenseInvalidFieldInCommandIU: the length or direction that the
	// initiator expects does not fit the CDB.
	SenseInvalidFieldInCommandIU = check(illegalRequest, ascInvalidFieldInCommandIU)

	// SenseInvalidMessage: a task attribute that the logical unit does not
	// have (SAM-5 section 8.6.5).
	SenseInvalidMessage = check(illegalRequest, ascInvalidMessage)

	SenseInternalTargetFailure = check(hardwareError, ascInternalTargetFailure)
)

// statusNoRegistrations is INSUFFICIENT REGISTRATION RESOURCES.
var statusNoRegistrations = check(illegalRequest, ascNoRegistrationResources)

// Code is the status code, for example [Good] or [CheckCondition].
func (s Status) Code() byte { return s.code }

// AppendSense appends the sense data, in the format that the unit's D_SENSE
// bit chose when the command was decoded: nothing unless the status is CHECK
// CONDITION.
func (s Status) AppendSense(b []byte) []byte {
	if s.code != CheckCondition {
		return b
	}
	return s.sense.append(b)
}

// check is CHECK CONDITION with a sense key and ASC<<8|ASCQ.
func check(key senseKey, code uint16) Status {
	return Status{code: CheckCondition, sense: sense{key: key, code: code}}
}

// withInfo adds the INFORMATION field, a logical block address in most uses.
func (s Status) withInfo(info uint64) Status {
	s.sense.info, s.sense.hasInfo = info, true
	return s
}

// withProgress adds the progress indication, in 65536ths (SPC-4 section
// 4.5.2.4.4).
func (s Status) withProgress(n uint16) Status {
	s.sense.specific = [3]byte{sksValid, byte(n >> 8), byte(n)}
	return s
}

// withFormat chooses descriptor format sense data over fixed format.
func (s Status) withFormat(descriptor bool) Status {
	if s.code == CheckCondition {
		s.sense.descriptor = descriptor
	}
	return s
}

// IsAttention says whether the status reports a unit attention.
func (s Status) IsAttention() bool { return s.code == CheckCondition && s.sense.key == unitAttention }
