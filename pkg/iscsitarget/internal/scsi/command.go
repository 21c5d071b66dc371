package scsi

import "context"

// Direction is the way a command's data moves, seen from the initiator.
type Direction uint8

// The directions that SAM-5 section 5.1 gives a command.
const (
	NoData  Direction = iota
	DataIn            // from the device to the initiator
	DataOut           // from the initiator to the device
)

// Kind says what remains to be done with a decoded [Command].
type Kind uint8

const (
	// Done: Status and Data are final, nothing is left to call.
	Done Kind = iota
	// Exec: call Execute once, off the connection's goroutine (it may
	// block), with the Length bytes of parameter data that the initiator
	// sends (none where Dir is not DataOut).
	Exec
	// Read: call ReadAt for every part of [0, Length).
	Read
	// Write: call WriteAt for every part of [0, Length) as the data
	// arrives, then Finish once. The parts may come in any order and
	// concurrently.
	Write
)

// MaxParameterLength is the longest parameter list, in bytes, that a Command
// of kind Exec ever asks for: Length never exceeds it.
const MaxParameterLength = 64 << 10

// Command is one CDB decoded for one I_T_L nexus: what Decode found out
// without waiting for anything. It is used by value, by one task.
type Command struct {
	Kind Kind
	Dir  Direction
	// Length is what the CDB transfers, in bytes, whatever the initiator
	// expects: for Done it is len(Data).
	Length int64
	// Status and Data are the outcome where Kind is Done.
	Status Status
	Data   []byte

	nexus *Nexus
	unit  *Unit
	op    *operation
	cdb   [16]byte
	// offset is where a Read or Write begins on the medium, in bytes.
	offset int64
	fua    bool
}

// Execute performs a command of kind Exec. params holds Length bytes, or fewer
// where the initiator expected to send fewer. The returned data is at most the
// CDB's allocation length. A cancelled context ends a long command between two
// steps, with status TASK ABORTED.
func (c *Command) Execute(ctx context.Context, params []byte) ([]byte, Status) {
	return c.op.execute(ctx, c, params)
}
