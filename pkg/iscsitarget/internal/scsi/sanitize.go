package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"math/bits"
)

// Service actions of SANITIZE (SBC-3 section 5.38).
const (
	sanitizeOverwrite   = 0x01
	sanitizeBlockErase  = 0x02
	sanitizeExitFailure = 0x1F
)

// Bits of byte 1 of SANITIZE.
const (
	sanitizeImmediate = 1 << 7 // IMMED
	sanitizeAllowExit = 1 << 5 // AUSE
)

const (
	overwriteHeader = 4
	overwriteInvert = 1 << 7
	overwriteTest   = 0x60
	overwriteCount  = 0x1F
)

// decodeOverwrite is SANITIZE with the overwrite service action.
func decodeOverwrite(r request) Command {
	length := int64(binary.BigEndian.Uint16(r.cdb[7:]))
	if st := r.admitSanitize(); st.code != Good {
		return r.fail(st)
	}
	if length < overwriteHeader+1 || length > overwriteHeader+r.itl.unit.blockSize {
		return r.fail(invalidField(7, 7))
	}
	return Command{Kind: Exec, Dir: DataOut, Length: length}
}

// decodeBlockErase is SANITIZE with the block erase service action.
func decodeBlockErase(r request) Command { return r.withoutList(r.admitSanitize()) }

// decodeExitFailure is SANITIZE with the exit failure mode service action.
func decodeExitFailure(r request) Command { return r.withoutList(r.checkReserved()) }

// withoutList is a SANITIZE that has no parameter list, unless st refuses it.
func (r request) withoutList(st Status) Command {
	if st.code == Good && binary.BigEndian.Uint16(r.cdb[7:]) != 0 {
		st = invalidField(7, 7)
	}
	if st.code != Good {
		return r.fail(st)
	}
	return Command{Kind: Exec}
}

// admitSanitize asks for itself what other commands are asked by their access,
// since SANITIZE is what ends a failed one.
func (r request) admitSanitize() Status {
	if st := r.checkReserved(); st.code != Good {
		return st
	}
	c := r.itl.unit.chores.current.Load()
	if c != nil && !c.Failed {
		return c.status(r.itl.unit.chores.progress.Load())
	}
	return r.itl.admit(writesMedium)
}

// checkReserved refuses bits that mean nothing: what they might ask for cannot
// be undone.
func (r request) checkReserved() Status {
	usage := r.op.cdbUsage()
	for i, b := range r.cdb[:len(usage)-1] {
		if b&^usage[i] != 0 && i > 0 {
			return invalidField(i, bits.Len8(b&^usage[i])-1)
		}
	}
	return StatusGood
}

func executeOverwrite(ctx context.Context, c Command, params []byte) ([]byte, Status) {
	if int64(len(params)) < c.Length {
		return nil, check(illegalRequest, ascInvalidFieldInCommandIU)
	}
	length := int(binary.BigEndian.Uint16(params[2:]))
	count := int(params[0] & overwriteCount)
	switch {
	case params[0]&overwriteTest != 0:
		return nil, invalidParameter(0, 6)
	case count == 0:
		return nil, invalidParameter(0, 4)
	case length == 0 || length != len(params)-overwriteHeader:
		return nil, invalidParameter(2, 7)
	}
	return nil, c.sanitize(ctx, chore{
		Kind: choreOverwrite, Pattern: append([]byte(nil), params[overwriteHeader:]...),
		Passes: count, Invert: params[0]&overwriteInvert != 0,
	})
}

func executeBlockErase(ctx context.Context, c Command, _ []byte) ([]byte, Status) {
	return nil, c.sanitize(ctx, chore{Kind: choreErase})
}

func executeExitFailure(_ context.Context, c Command, _ []byte) ([]byte, Status) {
	return nil, c.itl.unit.exitFailure()
}

func (c *Command) sanitize(ctx context.Context, job chore) Status {
	job.AllowExit = c.cdb[1]&sanitizeAllowExit != 0
	return c.runChore(ctx, job, c.cdb[1]&sanitizeImmediate != 0)
}

// runChore starts a chore and waits for its end unless the answer is to be
// immediate. It goes on though the command be aborted.
func (c *Command) runChore(ctx context.Context, job chore, immediate bool) Status {
	u := c.itl.unit
	done, err := u.startChore(job)
	switch {
	case errors.Is(err, errChore):
		return u.admitChore()
	case err != nil:
		u.config.Logger.Error("Cannot begin to erase the unit", "kind", job.Kind, "err", err)
		return SenseInternalTargetFailure
	case immediate:
		return StatusGood
	}
	select {
	case <-done:
		return u.admitChore()
	case <-ctx.Done():
		return StatusTaskAborted
	}
}
