package scsi

import (
	"bytes"
	"context"
)

// decodeExtendedCopy is SPC-4's EXTENDED COPY(LID1) and (LID4). Nothing that the
// logical unit itself has is asked for yet: it need not be source or destination.
func decodeExtendedCopy(r request) Command {
	length := bigEndian(r.cdb[10:14])
	longest := uint64(16 + maxCopyListBytes)
	if r.op.action == actionExtendedCopy4 {
		longest = 48 + maxCopyListBytes
	}
	switch {
	case length == 0:
		return Command{}
	case length > longest:
		return r.fail(check(illegalRequest, ascParameterListLength))
	}
	return Command{Kind: Exec, Dir: DataOut, Length: int64(length)}
}

// Service actions of the opcodes 83h and 84h (SPC-4, third-party copy commands).
const (
	actionExtendedCopy1 = 0x00
	actionExtendedCopy4 = 0x01
	actionPopulateToken = 0x10
	actionWriteToken    = 0x11
	actionCopyAbort     = 0x1C

	actionCopyStatus1  = 0x00
	actionCopyData     = 0x01
	actionCopyLimits   = 0x03
	actionCopyFailure  = 0x04
	actionTokenInfo    = 0x07
	actionReportTokens = 0x08
	actionCopyStatus4  = 0x05
)

// executeExtendedCopy checks the whole list, and then copies segment by segment.
func executeExtendedCopy(ctx context.Context, c Command, params []byte) ([]byte, Status) {
	parse := parseCopyList1
	if c.op.action == actionExtendedCopy4 {
		parse = parseCopyList4
	}
	list, st := parse(params)
	if st.code != Good {
		return nil, st
	}
	return nil, c.manage(ctx, list.id, list.named, func(ctx context.Context, op *copyOperation) Status {
		return c.copySegments(ctx, op, list)
	})
}

// copySegments makes what it copied stable at the end, once for each destination
// that has no write cache.
func (c *Command) copySegments(ctx context.Context, op *copyOperation, list copyList) Status {
	written := map[*itl]Command{}
	for _, s := range list.segments {
		to, st := c.copySegment(ctx, op, list.cscds, s)
		if st.code != Good {
			return segmentFailed(st)
		}
		op.segmentDone()
		written[to.itl] = to
	}
	for _, to := range written {
		if st := to.settle(); st.code != Good {
			return segmentFailed(st)
		}
	}
	return StatusGood
}

// segmentFailed is what the initiator is told about a segment that a unit refused
// or failed (SPC-4, EXTENDED COPY). What it must do something about itself stays
// as it is: a full pool, write protection, a reservation. Blocks behind a unit's
// end are no reachable source or destination, which is what the copy managers in
// use say of them.
func segmentFailed(st Status) Status {
	switch {
	case st.code != CheckCondition || st.sense.key == copyAborted || st.sense.key == dataProtect:
		return st
	case st.sense.code == ascLBAOutOfRange:
		return check(copyAborted, ascCopyTargetNotReachable)
	case st.sense.key == illegalRequest:
		return check(copyAborted, st.sense.code)
	}
	return check(copyAborted, ascThirdPartyDeviceFailure)
}

// copySegment returns the command that it used on the destination.
func (c *Command) copySegment(ctx context.Context, op *copyOperation, cscds []cscd, s segment) (Command, Status) {
	from, st := c.resolve(cscds, s.source)
	if st.code != Good {
		return Command{}, st
	}
	to, st := c.resolve(cscds, s.destination)
	if st.code != Good {
		return Command{}, st
	}
	job := copyJob{from: from, to: c.onto(to), moved: op.move}
	if st := job.admit(); st.code != Good {
		return Command{}, st
	}
	src, dst, st := s.extents(from.unit, to.unit)
	if st.code != Good {
		return Command{}, st
	}
	st = job.copyRange(ctx, src.at, dst.at, dst.length)
	return job.to, st
}

// extents are the bytes that a segment names, of one length. Blocks that do not
// fill the other unit's are refused: nothing is padded, or kept for the next
// segment (CAT).
func (s segment) extents(from, to *Unit) (src, dst extent, st Status) {
	n := s.blocks * from.blockSize
	if s.ofDestination {
		n = s.blocks * to.blockSize
	}
	switch {
	case n > maxSegmentBytes:
		return src, dst, check(illegalRequest, ascInvalidFieldInParameters)
	case n%from.blockSize != 0 || n%to.blockSize != 0:
		return src, dst, check(illegalRequest, ascUnexpectedInexactSegment)
	}
	if st := from.checkRange(s.sourceLBA, from.inBlocks(n)); st.code != Good {
		return src, dst, st
	}
	if st := to.checkRange(s.destinationLBA, to.inBlocks(n)); st.code != Good {
		return src, dst, st
	}
	return extent{int64(s.sourceLBA) * from.blockSize, n}, extent{int64(s.destinationLBA) * to.blockSize, n}, StatusGood
}

// resolve finds the unit behind a CSCD descriptor ID.
func (c *Command) resolve(cscds []cscd, id uint16) (*itl, Status) {
	if id == thisUnit {
		return c.itl, StatusGood
	}
	if int(id) >= len(cscds) {
		return nil, check(copyAborted, ascCopyTargetNotReachable)
	}
	d := cscds[id]
	if d.deviceType != directAccess {
		return nil, check(copyAborted, ascIncorrectCopyTargetType)
	}
	l := c.itl.nexus.find(d)
	if l == nil {
		return nil, check(copyAborted, ascCopyTargetNotReachable)
	}
	if d.blockLength != 0 && d.blockLength != l.unit.blockSize {
		return nil, check(copyAborted, ascInvalidOperationForCopy)
	}
	return l, StatusGood
}

// find returns the logical unit that a designator names, nil where there is none
// or more than one. Only those that this very nexus sees are looked at: a copy
// reaches nothing that a READ or a WRITE of the same initiator could not.
func (n *Nexus) find(d cscd) *itl {
	var found *itl
	for _, l := range *n.luns.Load() {
		if !l.unit.isNamed(d) {
			continue
		}
		if found != nil {
			return nil
		}
		found = l
	}
	return found
}

// isNamed says whether VPD page 83h has the designator among the unit's own.
func (u *Unit) isNamed(d cscd) bool {
	want := append([]byte{d.codeSet, d.kind, 0, byte(d.length)}, d.designator...)
	for names := unitDesignators(u.config); len(names) > 0; {
		n := 4 + int(names[3])
		if bytes.HasPrefix(names[:n], want) {
			return true
		}
		names = names[n:]
	}
	return false
}
