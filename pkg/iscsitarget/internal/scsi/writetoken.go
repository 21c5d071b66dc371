package scsi

import (
	"context"
	"encoding/binary"
)

// writeTokenHeader is what of WRITE USING TOKEN's parameter list comes before the
// range descriptors.
const writeTokenHeader = 536

// decodeWriteToken is SBC-3's WRITE USING TOKEN.
func decodeWriteToken(r request) Command { return r.tokenCommand(writeTokenHeader) }

// tokenWrite is WRITE USING TOKEN's parameter list.
type tokenWrite struct {
	deletes bool
	offset  uint64 // into the ROD, in blocks
	token   []byte
	ranges  []extent
	length  int64
}

func executeWriteToken(ctx context.Context, c Command, params []byte) ([]byte, Status) {
	w, st := c.itl.unit.parseTokenWrite(params)
	if st.code != Good {
		return nil, st
	}
	return nil, c.manage(ctx, c.tokenList(), true, func(ctx context.Context, op *copyOperation) Status {
		if st := c.itl.admitCopy(writesMedium); st.code != Good {
			return st
		}
		if isZeroToken(w.token) {
			return c.writeZeroToken(ctx, op, w)
		}
		return c.writeToken(ctx, op, w)
	})
}

func (u *Unit) parseTokenWrite(p []byte) (tokenWrite, Status) {
	const (
		deleteToken = 1 << 1 // DEL_TKN
		offsetAt    = 8
		tokenAt     = 16
		rangesAt    = 534
	)
	if len(p) < writeTokenHeader {
		return tokenWrite{}, check(illegalRequest, ascParameterListLength)
	}
	w := tokenWrite{
		deletes: p[2]&deleteToken != 0,
		offset:  binary.BigEndian.Uint64(p[offsetAt:]),
		token:   p[tokenAt : tokenAt+rodTokenBytes],
	}
	var st Status
	w.ranges, w.length, st = u.parseRanges(p, rangesAt)
	return w, st
}

// writeZeroToken writes zeros, as WRITE SAME would.
func (c *Command) writeZeroToken(ctx context.Context, op *copyOperation, w tokenWrite) Status {
	for _, e := range w.ranges {
		c.offset, c.span = e.at, e.length
		var st Status
		if c.itl.unit.zeroer != nil {
			st = c.inSteps(ctx, zeroStepBytes, c.zeroStep)
		} else {
			st = c.repeat(ctx, nil)
		}
		if st.code != Good {
			return st
		}
		op.move(e.length)
	}
	return c.settle()
}

// writeToken copies from where the token's blocks are. That they still are what
// it stands for is asked after each step: a change cancels the token before it
// touches them, so a step that read anything of it does not pass.
func (c *Command) writeToken(ctx context.Context, op *copyOperation, w tokenWrite) Status {
	from, t := c.itl.nexus.takeToken(w.token)
	if t == nil {
		return unknownToken(w.token)
	}
	u := from.unit
	defer u.tokens.put(t, w.deletes)
	valid := func() Status { return u.tokens.check(t, u.durability.era.Load()) }
	if st := valid(); st.code != Good {
		return st
	}
	if w.offset > uint64(t.length/c.itl.unit.blockSize) {
		return invalidParameter(8, 7)
	}
	offset := int64(w.offset) * c.itl.unit.blockSize
	if w.length > t.length-offset {
		return check(copyAborted, ascCopyTargetUnderrun)
	}
	job := copyJob{from: from, to: c.onto(c.itl), valid: valid, moved: op.move}
	for _, p := range pair(t.extents, offset, w.ranges) {
		if st := job.copyRange(ctx, p.src, p.dst, p.length); st.code != Good {
			return tokenFailed(st)
		}
	}
	return tokenFailed(job.to.settle())
}

// tokenFailed is segmentFailed, but for what is wrong with the token.
func tokenFailed(st Status) Status {
	if st.code == Good || st.sense.key == illegalRequest {
		return st
	}
	return segmentFailed(st)
}

// piece is a part of a copy that lies in one extent on either side.
type piece struct{ src, dst, length int64 }

// pair cuts the source, from an offset into it on, and the destination into
// pieces. The source is at least as long as that takes.
func pair(source []extent, offset int64, destination []extent) (pieces []piece) {
	for _, d := range destination {
		for done := int64(0); done < d.length; {
			for offset >= source[0].length {
				offset -= source[0].length
				source = source[1:]
			}
			n := min(d.length-done, source[0].length-offset)
			pieces = append(pieces, piece{source[0].at + offset, d.at + done, n})
			done, offset = done+n, offset+n
		}
	}
	return pieces
}

// takeToken finds a token among those of the units that this very nexus sees. One
// of any other unit is unknown to it, even if it has all of its bytes.
func (n *Nexus) takeToken(text []byte) (*itl, *rodToken) {
	for _, l := range *n.luns.Load() {
		if t := l.unit.tokens.take(text); t != nil {
			return l, t
		}
	}
	return nil, nil
}
