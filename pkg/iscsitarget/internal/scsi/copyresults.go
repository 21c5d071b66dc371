package scsi

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Values of COPY MANAGER STATUS and COPY OPERATION STATUS (SPC-4, RECEIVE COPY
// STATUS(LID1) and (LID4)).
const (
	copyInProgress  = 0x00 // LID1
	copyDone        = 0x01
	copyFailed      = 0x02
	copyInProgress4 = 0x11 // in the foreground
	copyTerminated  = 0x60
)

// Values of TRANSFER COUNT UNITS (SPC-4, RECEIVE COPY STATUS).
const (
	unitsBytes  = 0x00
	unitsKiB    = 0x01
	unitsMiB    = 0x02
	unitsBlocks = 0xF1
)

// askedCopy is the copy operation whose LIST IDENTIFIER is in byte 2 on.
func (r request) askedCopy(bytes int) (*copyOperation, Status) {
	op := r.itl.copies.find(uint32(bigEndian(r.cdb[2 : 2+bytes])))
	if op == nil {
		return nil, invalidField(2, 7)
	}
	return op, StatusGood
}

func (r request) copyAllocation() uint64 { return bigEndian(r.cdb[10:14]) }

// decodeCopyStatus1 is SPC-4's RECEIVE COPY STATUS(LID1). No data is held (HDD is
// zero): no segment asks for that.
func decodeCopyStatus1(r request) Command {
	op, st := r.askedCopy(1)
	if st.code != Good {
		return r.fail(st)
	}
	s := op.state()
	b := make([]byte, 12)
	binary.BigEndian.PutUint32(b, 8)
	b[4] = s.managerStatus()
	binary.BigEndian.PutUint16(b[5:], uint16(s.segments))
	units, count := s.transferCount1()
	b[7] = units
	binary.BigEndian.PutUint32(b[8:], count)
	return r.data(b, r.copyAllocation())
}

func (s copyState) managerStatus() byte {
	switch {
	case !s.over:
		return copyInProgress
	case s.status.code == Good:
		return copyDone
	}
	return copyFailed
}

// transferCount1 is the bytes moved in the smallest unit that they fit in.
func (s copyState) transferCount1() (units byte, count uint32) {
	n := s.bytes
	for units = unitsBytes; n > math.MaxUint32 && units < unitsMiB; units++ {
		n >>= 10
	}
	return units, uint32(n)
}

// endedCopy is the operation that is asked for, which must be over.
func (r request) endedCopy() (*copyOperation, Status) {
	op, st := r.askedCopy(1)
	if st.code == Good && !op.isOver() {
		st = invalidField(2, 7)
	}
	return op, st
}

// decodeCopyData is SPC-4's RECEIVE COPY DATA(LID1): of an operation that is over
// there is never any.
func decodeCopyData(r request) Command {
	if _, st := r.endedCopy(); st.code != Good {
		return r.fail(st)
	}
	return r.data(make([]byte, 4), r.copyAllocation())
}

// decodeCopyLimits is SPC-4's RECEIVE COPY OPERATING PARAMETERS.
func decodeCopyLimits(r request) Command {
	const snlid = 1 << 0 // an operation without list identifier is possible
	b := make([]byte, 44)
	b[4] = snlid
	binary.BigEndian.PutUint16(b[8:], maxCSCDs)
	binary.BigEndian.PutUint16(b[10:], maxSegments)
	binary.BigEndian.PutUint32(b[12:], maxCopyListBytes)
	binary.BigEndian.PutUint32(b[16:], maxSegmentBytes)
	binary.BigEndian.PutUint16(b[34:], maxCopies)
	b[36] = maxCopies
	b[37] = r.itl.unit.copyGranularity()
	b[43] = byte(len(copyDescriptors))
	b = append(b, copyDescriptors...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return r.data(b, r.copyAllocation())
}

// copyDescriptors are the descriptor type codes that a list may have, ascending.
var copyDescriptors = []byte{segmentBlockToBlock, cscdIdentification}

// copyGranularity is the logical block length as a power of two.
func (u *Unit) copyGranularity() byte { return byte(bits.TrailingZeros64(uint64(u.blockSize))) }

// decodeCopyFailure is SPC-4's RECEIVE COPY FAILURE DETAILS(LID1).
// Who has read it all, or asks for nothing of it, is done with the operation.
func decodeCopyFailure(r request) Command {
	op, st := r.endedCopy()
	if st.code != Good {
		return r.fail(st)
	}
	b := op.state().failure()
	allocation := r.copyAllocation()
	if allocation == 0 || allocation >= uint64(len(b)) {
		r.itl.copies.drop(op)
	}
	return r.data(b, allocation)
}

// failure is empty for an operation that did not fail.
func (s copyState) failure() []byte {
	if s.status.code == Good {
		return make([]byte, 4)
	}
	b := make([]byte, 60)
	b[56] = s.status.code
	b = s.status.AppendSense(b)
	binary.BigEndian.PutUint16(b[58:], uint16(len(b)-60))
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// decodeCopyStatus4 is SPC-4's RECEIVE COPY STATUS(LID4).
func decodeCopyStatus4(r request) Command {
	op, st := r.askedCopy(4)
	if st.code != Good {
		return r.fail(st)
	}
	s := op.state()
	return r.data(finishStatus4(s.status4(unitsBytes, uint64(s.bytes))), r.copyAllocation())
}

// status4 is the state with its sense data, but for AVAILABLE DATA.
func (s copyState) status4(units byte, count uint64) []byte {
	const noEstimate = math.MaxUint32
	b := make([]byte, 32)
	b[4] = s.action
	b[5] = s.operationStatus()
	binary.BigEndian.PutUint16(b[6:], uint16(s.bytes/stepBytes)) // it changes while work is done
	binary.BigEndian.PutUint32(b[8:], noEstimate)
	b[12] = s.status.code
	b[15] = units
	binary.BigEndian.PutUint64(b[16:], count)
	binary.BigEndian.PutUint16(b[24:], uint16(s.segments))
	b = s.status.AppendSense(b)
	b[13], b[14] = byte(len(b)-32), byte(len(b)-32)
	return b
}

func finishStatus4(b []byte) []byte {
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func (s copyState) operationStatus() byte {
	switch {
	case !s.over:
		return copyInProgress4
	case s.status.code == Good:
		return copyDone
	case s.status.code == TaskAborted:
		return copyTerminated
	}
	return copyFailed
}

// decodeCopyAbort is SPC-4's COPY OPERATION ABORT: the operation ends before its
// next step, with TASK ABORTED.
func decodeCopyAbort(r request) Command {
	op, st := r.askedCopy(4)
	if st.code == Good && op.isOver() {
		st = invalidField(2, 7)
	}
	if st.code != Good {
		return r.fail(st)
	}
	op.cancel()
	return Command{}
}
