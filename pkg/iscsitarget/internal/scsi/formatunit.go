package scsi

import "context"

// Fields of FORMAT UNIT (SBC-3 section 5.3).
const (
	formatProtection = 0xC0 // FMTPINFO
	formatLongList   = 1 << 5
	formatData       = 1 << 4
	formatDefects    = 0x07 // DEFECT LIST FORMAT
	formatImmediate  = 1 << 1
	formatShort      = 4
	formatLong       = 8
)

// decodeFormatUnit is FORMAT UNIT: all blocks read as zeros afterwards. There is
// no protection information, and no list of defects to go by.
func decodeFormatUnit(r request) Command {
	if r.cdb[1]&formatProtection != 0 {
		return r.fail(invalidField(1, 7))
	}
	if st := r.admitSanitize(); st.code != Good {
		return r.fail(st)
	}
	if r.cdb[1]&formatData == 0 {
		return Command{Kind: Exec}
	}
	length := int64(formatShort)
	if r.cdb[1]&formatLongList != 0 {
		length = formatLong
	}
	return Command{Kind: Exec, Dir: DataOut, Length: length}
}

func executeFormatUnit(ctx context.Context, c Command, params []byte) ([]byte, Status) {
	if c.Length == 0 {
		return nil, c.runChore(ctx, chore{Kind: choreFormat}, false)
	}
	if int64(len(params)) < c.Length {
		return nil, check(illegalRequest, ascInvalidFieldInCommandIU)
	}
	if st := checkFormatHeader(params[:c.Length]); st.code != Good {
		return nil, st
	}
	return nil, c.runChore(ctx, chore{Kind: choreFormat}, params[1]&formatImmediate != 0)
}

// checkFormatHeader refuses protection information and a defect list.
func checkFormatHeader(b []byte) Status {
	const protectionUsage = 0x07
	defects := len(b) / 2 // the second half is the list's length
	switch {
	case b[0]&protectionUsage != 0:
		return invalidParameter(0, 2)
	case len(b) == formatLong && b[3] != 0:
		return invalidParameter(3, 7)
	case bigEndian(b[defects:]) != 0:
		return invalidParameter(defects, 7)
	}
	return StatusGood
}
