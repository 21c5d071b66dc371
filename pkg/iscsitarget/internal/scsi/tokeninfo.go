package scsi

import (
	"encoding/binary"
	"maps"
	"slices"
)

// maxTokenReport bounds REPORT ALL ROD TOKENS, in tokens.
const maxTokenReport = 512

// decodeTokenInfo is SPC-4's RECEIVE ROD TOKEN INFORMATION: what RECEIVE COPY
// STATUS(LID4) says, counted in blocks, and then the token that was made.
func decodeTokenInfo(r request) Command {
	op, st := r.askedCopy(4)
	if st.code != Good {
		return r.fail(st)
	}
	s := op.state()
	b := s.status4(unitsBlocks, r.itl.unit.inBlocks(s.bytes))
	if s.token == nil {
		b = append(b, 0, 0, 0, 0)
	} else {
		b = binary.BigEndian.AppendUint32(b, 2+rodTokenBytes)
		b = append(append(b, 0, 0), s.token...)
	}
	return r.data(finishStatus4(b), r.copyAllocation())
}

// decodeReportTokens is SPC-4's REPORT ALL ROD TOKENS, for the units that the
// nexus sees.
func decodeReportTokens(r request) Command {
	const header = 8
	b := make([]byte, header)
	luns := *r.itl.nexus.luns.Load()
	for _, lun := range slices.Sorted(maps.Keys(luns)) {
		b = luns[lun].unit.tokens.report(b, header+maxTokenReport*rodManagementBytes)
	}
	return r.data(finishStatus4(b), r.copyAllocation())
}
