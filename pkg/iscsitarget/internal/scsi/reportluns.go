package scsi

import (
	"encoding/binary"
	"maps"
	"slices"
)

// Values of SELECT REPORT (SPC-4 section 6.33).
const (
	selectLogicalUnits = 0
	selectWellKnown    = 1
	selectAll          = 2
)

// decodeReportLUNs is REPORT LUNS, SPC-4 section 6.33, on any LUN. Having told
// the news it clears REPORTED LUNS DATA HAS CHANGED on every unit.
func decodeReportLUNs(r request) Command {
	allocation := uint64(binary.BigEndian.Uint32(r.cdb[6:]))
	if r.cdb[2] > selectAll {
		return r.fail(invalidField(2, 7))
	}
	if allocation < 16 {
		return r.fail(invalidField(6, 7))
	}
	luns := *r.nexus.luns.Load()
	for _, l := range luns {
		l.attentions.clear(attentionReportedLUNs)
	}
	b := make([]byte, 8, 8+8*len(luns))
	if r.cdb[2] != selectWellKnown {
		for _, lun := range slices.Sorted(maps.Keys(luns)) {
			b = appendLUN(b, lun)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-8))
	return r.data(b, allocation)
}
