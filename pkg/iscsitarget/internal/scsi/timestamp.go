package scsi

import (
	"context"
	"time"
)

const (
	timestampBytes = 12
	// Values of TIMESTAMP ORIGIN (SPC-4 section 5.2).
	originSet   = 2 // by SET TIMESTAMP
	originClock = 3 // by other means
)

// decodeReportTimestamp is REPORT TIMESTAMP, SPC-4 section 6.38: milliseconds
// since the year 1970, from this machine's clock until SET TIMESTAMP says
// otherwise.
func decodeReportTimestamp(r request) Command {
	origin, ahead := byte(originClock), time.Duration(0)
	if set := r.itl.unit.clockAhead.Load(); set != nil {
		origin, ahead = originSet, *set
	}
	b := make([]byte, timestampBytes)
	b[1], b[2] = timestampBytes-2, origin
	put48(b[4:], uint64(time.Now().Add(ahead).UnixMilli()))
	return r.data(b, bigEndian(r.cdb[6:10]))
}

// decodeSetTimestamp is SET TIMESTAMP, SPC-4 section 6.45.
func decodeSetTimestamp(r request) Command {
	switch length := bigEndian(r.cdb[6:10]); {
	case length == 0:
		return Command{}
	case length < timestampBytes:
		return r.fail(check(illegalRequest, ascParameterListLength))
	case length > timestampBytes:
		return r.fail(invalidField(6, 7))
	}
	return Command{Kind: Exec, Dir: DataOut, Length: timestampBytes}
}

func executeSetTimestamp(_ context.Context, c Command, params []byte) ([]byte, Status) {
	if len(params) < timestampBytes {
		return nil, check(illegalRequest, ascParameterListLength)
	}
	u := c.itl.unit
	ahead := time.Until(time.UnixMilli(int64(bigEndian(params[4:10]))))
	u.clockAhead.Store(&ahead)
	u.establishForOthers(c.itl, attentionTimestamp)
	return nil, StatusGood
}

func put48(b []byte, n uint64) {
	for i := range 6 {
		b[i] = byte(n >> (40 - 8*i))
	}
}
