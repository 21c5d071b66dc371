package scsi

import (
	"context"
	"encoding/binary"
	"slices"
	"time"
)

// Limits on what one token stands for, and on what is written with one at once.
const (
	maxTokenRanges = 64
	maxTokenBytes  = 1 << 30
)

const (
	populateHeader = 16
	rangeBytes     = 16
	// maxRangeList is what BLOCK DEVICE RANGE DESCRIPTOR LENGTH can say.
	maxRangeList = 0xFFFF
)

// decodePopulateToken is SBC-3's POPULATE TOKEN.
func decodePopulateToken(r request) Command { return r.tokenCommand(populateHeader) }

// tokenCommand checks the PARAMETER LIST LENGTH. IMMED is accepted; the answer
// still comes when the work is done.
func (r request) tokenCommand(header uint64) Command {
	length := bigEndian(r.cdb[10:14])
	switch {
	case length == 0:
		return Command{}
	case length < header || length > header+maxRangeList:
		return r.fail(check(illegalRequest, ascParameterListLength))
	}
	return Command{Kind: Exec, Dir: DataOut, Length: int64(length), fua: !r.itl.unit.writeCache()}
}

// tokenList is the LIST IDENTIFIER of a command that has it in the CDB.
func (c *Command) tokenList() uint32 { return binary.BigEndian.Uint32(c.cdb[6:]) }

// population is POPULATE TOKEN's parameter list.
type population struct {
	timeout time.Duration
	ranges  []extent
	length  int64
}

func executePopulateToken(ctx context.Context, c Command, params []byte) ([]byte, Status) {
	p, st := c.itl.unit.parsePopulation(params)
	if st.code != Good {
		return nil, st
	}
	return nil, c.manage(ctx, c.tokenList(), true, func(_ context.Context, op *copyOperation) Status {
		if st := c.itl.admitCopy(readsMedium); st.code != Good {
			return st
		}
		t, st := c.itl.makeToken(p)
		if st.code == Good {
			op.made(t.text[:], p.length)
		}
		return st
	})
}

// parsePopulation reads POPULATE TOKEN's parameter list. A ROD type, where one is
// asked for, must be one that a change vulnerable copy is an answer to.
func (u *Unit) parsePopulation(p []byte) (population, Status) {
	const (
		rtv       = 1 << 1 // ROD TYPE is valid
		timeoutAt = 4
		typeAt    = 8
		rangesAt  = 14
	)
	if len(p) < populateHeader {
		return population{}, check(illegalRequest, ascParameterListLength)
	}
	timeout := time.Duration(binary.BigEndian.Uint32(p[timeoutAt:])) * time.Second
	switch rod := binary.BigEndian.Uint32(p[typeAt:]); {
	case p[2]&rtv != 0 && rod != rodPointInTime && rod != rodChangeCancels && rod != rodAnyPointInTime:
		return population{}, invalidParameter(typeAt, 7)
	case timeout > maxTokenTimeout:
		return population{}, invalidParameter(timeoutAt, 7)
	case timeout == 0:
		timeout = defaultTokenTimeout
	}
	ranges, length, st := u.parseRanges(p, rangesAt)
	if st.code == Good && length == 0 {
		st = invalidParameter(rangesAt, 7) // a token that stands for nothing
	}
	return population{timeout, ranges, length}, st
}

// parseRanges reads the block device range descriptors (SBC-3) behind their
// length in p[at:], and checks the length of the data that the list begins with.
// A last descriptor that is cut short by the length is ignored.
func (u *Unit) parseRanges(p []byte, at int) (ranges []extent, length int64, st Status) {
	n := int(binary.BigEndian.Uint16(p[at:]))
	list := p[at+2:]
	switch {
	case n > len(list):
		return nil, 0, check(illegalRequest, ascParameterListLength)
	case n < rangeBytes:
		return nil, 0, invalidParameter(at, 7)
	case n/rangeBytes > maxTokenRanges:
		return nil, 0, check(illegalRequest, ascTooManySegments)
	case int(binary.BigEndian.Uint16(p)) < at+n:
		return nil, 0, invalidParameter(0, 7)
	}
	for i := 0; i+rangeBytes <= n; i += rangeBytes {
		lba, blocks := binary.BigEndian.Uint64(list[i:]), uint64(binary.BigEndian.Uint32(list[i+8:]))
		if st := u.checkRange(lba, blocks); st.code != Good {
			return nil, 0, st
		}
		e := extent{int64(lba) * u.blockSize, int64(blocks) * u.blockSize}
		if slices.ContainsFunc(ranges, e.meets) {
			return nil, 0, invalidParameter(at+2+i, 7)
		}
		if length += e.length; length > maxTokenBytes {
			return nil, 0, invalidParameter(at+2+i+8, 7)
		}
		ranges = append(ranges, e)
	}
	return ranges, length, StatusGood
}

// makeToken makes a token, and waits for the changes of its blocks that did not
// meet it: each change is either part of what the token stands for or cancels it.
func (l *itl) makeToken(p population) (*rodToken, Status) {
	u := l.unit
	t := &rodToken{nexus: l.nexus, extents: p.ranges, length: p.length, timeout: p.timeout}
	t.era = u.durability.era.Load()
	st := u.tokens.add(t, func(serial uint64) [rodTokenBytes]byte { return u.newTokenText(serial, t.length) })
	for _, e := range p.ranges {
		u.guard.wait(e.at, e.length)
	}
	return t, st
}

// made notes the outcome of POPULATE TOKEN.
func (op *copyOperation) made(token []byte, length int64) {
	op.mu.Lock()
	defer op.mu.Unlock()
	op.token, op.bytes = token, length
}
