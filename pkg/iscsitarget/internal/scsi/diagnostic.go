package scsi

import "context"

// The fields of byte 1 of SEND DIAGNOSTIC.
const (
	selfTestBit       = 0x04
	selfTestCodeShift = 5
	foregroundShort   = 5 // a SELF-TEST CODE
)

// decodeSendDiagnostic is SEND DIAGNOSTIC (SPC-4 section 6.42): the default self-test,
// and the short one in the foreground, which is the same. There are no diagnostic
// pages, and nothing that a self-test would have to say in the background.
func decodeSendDiagnostic(r request) Command {
	code, selfTest := r.cdb[1]>>selfTestCodeShift, r.cdb[1]&selfTestBit != 0
	switch {
	case r.cdb[3] != 0 || r.cdb[4] != 0:
		return r.fail(invalidField(3, 7))
	case code != 0 && (selfTest || code != foregroundShort):
		return r.fail(invalidField(1, 7))
	case code == 0 && !selfTest:
		return Command{}
	}
	return Command{Kind: Exec}
}

// executeSendDiagnostic reads the first and the last block.
func executeSendDiagnostic(_ context.Context, c Command, _ []byte) ([]byte, Status) {
	u := c.itl.unit
	block := make([]byte, u.blockSize)
	for _, at := range []int64{0, (u.blocks.Load() - 1) * u.blockSize} {
		if n, err := u.device.ReadAt(block, at); n < len(block) && err != nil {
			u.config.Logger.Error("self-test failed", "offset", at, "error", err)
			return nil, check(hardwareError, ascSelfTestFailed)
		}
	}
	return nil, StatusGood
}
