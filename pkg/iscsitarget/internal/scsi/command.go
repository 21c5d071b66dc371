package scsi

import (
	"context"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

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
	// Done says that Status and Data are final: nothing is left to call.
	Done Kind = iota
	// Exec asks to call Execute once, off the connection's goroutine (it
	// may block), with the Length bytes of parameter data that the
	// initiator sends (none where Dir is not DataOut).
	Exec
	// Read asks to call ReadAt for every part of [0, Length), one after the
	// other from the first on.
	Read
	// Write asks to call WriteAt for every part of [0, Length) as the data
	// arrives, then Finish once. The parts may come in any order and
	// concurrently. The first status that is not GOOD is the command's.
	Write
)

// MaxParameterLength is the longest parameter list, in bytes, that a Command
// of kind Exec ever asks for: Length never exceeds it.
const MaxParameterLength = 256 << 10

// Command is one CDB decoded for one I_T_L nexus: what Decode found out
// without waiting for anything. It is used by value, by one task.
type Command struct {
	Kind Kind
	Dir  Direction
	// Length is what the CDB transfers, in bytes, whatever the initiator
	// expects: for Done it is len(Data), for an Exec that is DataIn the
	// allocation length.
	Length int64
	// Status and Data are the outcome where Kind is Done.
	Status Status
	Data   []byte

	itl *itl
	op  *operation
	cdb [16]byte
	// offset and span are the bytes of the medium that the CDB names. For a
	// Read or a Write span is Length.
	offset, span int64
	// fua: what is read or written is on stable storage before GOOD.
	fua bool
	// lastRead is the number of the next atomic write when the last part of a
	// Read was read.
	lastRead int64
	// store, verify and compare say what WriteAt does with a part: write it,
	// read the medium back, and compare that with the part.
	store, verify, compare bool
	// or: WriteAt ORs a part into the medium.
	or bool
	// wrongLength is what WrongLength says, GOOD for its default.
	wrongLength Status
	// descriptor is the sense format as of Decode.
	descriptor bool
	attribute  Attribute
	// aca: the ACA condition of its nexus lets it in.
	aca bool
}

// On says whether the command was decoded for that unit, which may have been removed
// since.
func (c *Command) On(u *Unit) bool { return c.itl != nil && c.itl.unit == u }

// Execute performs a command of kind Exec. params holds Length bytes, or fewer
// where the initiator expected to send fewer. The returned data is at most the
// CDB's allocation length. A cancelled context ends a long command between two
// steps, with status TASK ABORTED.
func (c *Command) Execute(ctx context.Context, params []byte) ([]byte, Status) {
	if c.Kind != Exec {
		return nil, c.inFormat(SenseInternalTargetFailure)
	}
	data, st := c.op.execute(ctx, *c, params)
	return data, c.inFormat(st)
}

// WrongLength is the status of a command of kind Exec for which the initiator
// is ready to send another number of bytes than Length.
func (c *Command) WrongLength() Status {
	if c.wrongLength.code != Good {
		return c.inFormat(c.wrongLength)
	}
	return c.inFormat(SenseInvalidFieldInCommandIU)
}

// ReadAt fills p from byte off of what a command of kind Read transfers. It
// may block.
func (c *Command) ReadAt(p []byte, off int64) Status {
	return c.inFormat(c.readAt(p, off))
}

// Readiness is what became of a read that was not to wait.
type Readiness uint8

const (
	// Blocks says that it has to wait, or that nobody can tell. ReadAt is to be
	// called.
	Blocks Readiness = iota
	// Fetching says that what it lacks is being read into memory. ReadAt would wait
	// for that; ReadAtNowait may be called again.
	Fetching
	// Ready says that it is done, with the status that goes with it.
	Ready
)

// ReadAtNowait is ReadAt where that needs no waiting.
func (c *Command) ReadAtNowait(p []byte, off int64) (Status, Readiness) {
	st, r := c.readAtNowait(p, off)
	return c.inFormat(st), r
}

// BeginRead has the device read all of what a command of kind Read transfers into p, and
// tell done, which may be before it returns. It returns the device, which the caller is to
// look after, and nil where the read is to be done by ReadAt.
func (c *Command) BeginRead(p []byte, done blockdev.ReadDone) blockdev.BackgroundReader {
	device := c.itl.unit.background
	if !c.beginRead(p, done) {
		return nil
	}
	return device
}

// EndRead says, when the first n bytes were read so, that they are what the command found.
// Otherwise ReadAt finds it.
func (c *Command) EndRead(n int64) bool {
	return !c.itl.unit.atomics.met(c.lastRead, c.offset, n)
}

// ToCache says that WriteAt and Finish rarely wait: what they are given goes to memory,
// and need not be stable.
func (c *Command) ToCache() bool {
	return c.Kind == Write && c.store && !c.fua && !c.verify && !c.or && c.itl.unit.cachesWrites
}

// WholeBlocks says whether a part of what the command transfers is made of whole logical
// blocks: one that is not may be written only with what else belongs to them.
func (c *Command) WholeBlocks(off, n int64) bool { return (off|n)&(c.itl.unit.blockSize-1) == 0 }

// WriteAt takes p as the bytes from off on of what a command of kind Write
// transfers. It may block.
func (c *Command) WriteAt(p []byte, off int64) Status {
	return c.inFormat(c.writeAt(p, off))
}

// Finish ends a command of kind Write whose parts were all GOOD. It may block.
func (c *Command) Finish() Status {
	return c.inFormat(c.finish())
}

func (c *Command) inFormat(st Status) Status { return st.withFormat(c.descriptor) }
