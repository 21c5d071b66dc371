package scsi

import (
	"encoding/binary"
	"math"
	"strings"
)

// Limits and hints of VPD page B0h, in bytes; fields are in logical blocks.
const (
	maxTransferBytes     = 256 << 20 // data moves in bursts, so nothing needs it small
	optimalTransferBytes = 1 << 20
)

// Designator fields of VPD page 83h (SPC-4 section 7.8.5).
const (
	codeSetBinary = 0x1
	codeSetASCII  = 0x2
	codeSetUTF8   = 0x3

	designatorT10      = 0x1
	designatorNAA      = 0x3
	designatorPort     = 0x4 // relative target port identifier
	designatorGroup    = 0x5 // target port group
	designatorSCSIName = 0x8

	ofLogicalUnit  = 0x00
	ofTargetPort   = 0x90 // with PIV: the protocol identifier is valid
	ofTargetDevice = 0xA0

	protocolISCSI = 0x50
	// t10Binary is how many bytes follow the vendor in a binary T10 designator.
	t10Binary = 16
	// maxName keeps a designator's length within its byte.
	maxName = 248
)

// vpdPage is a page of vital product data.
type vpdPage struct {
	code byte
	// offered says whether the unit has the page; nil is yes.
	offered func(*Unit) bool
	body    func(*itl) []byte
}

// vpdPages are all pages but 00h, which lists them, in ascending order.
var vpdPages = []vpdPage{
	{0x80, func(u *Unit) bool { return u.config.Serial != "" }, serialPage},
	{0x83, nil, identificationPage},
	{0x86, nil, extendedInquiryPage},
	{0x87, nil, modePolicyPage},
	{0x88, nil, portsPage},
	{0x8F, nil, thirdPartyPage},
	{0xB0, nil, limitsPage},
	{0xB1, nil, characteristicsPage},
	{0xB2, (*Unit).thin, provisioningPage},
}

func (p vpdPage) in(u *Unit) bool { return p.offered == nil || p.offered(u) }

// vpd answers INQUIRY with EVPD, SPC-4 section 7.8. Where no unit is, only the
// list of pages is there, and it lists itself alone.
func (r request) vpd(allocation uint64) Command {
	body, ok := r.vpdBody(r.cdb[2])
	if !ok {
		return r.fail(invalidField(2, 7))
	}
	b := []byte{r.peripheral(), r.cdb[2]}
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return r.data(append(b, body...), allocation)
}

func (r request) vpdBody(code byte) ([]byte, bool) {
	list := []byte{0}
	if r.itl != nil {
		for _, p := range vpdPages {
			if !p.in(r.itl.unit) {
				continue
			}
			if p.code == code {
				return p.body(r.itl), true
			}
			list = append(list, p.code)
		}
	}
	return list, code == 0
}

func serialPage(l *itl) []byte {
	s := l.unit.config.Serial
	b := make([]byte, min(len(s), maxName))
	putText(b, s)
	return b
}

// unitDesignators are the names of a logical unit.
func unitDesignators(c UnitConfig) []byte {
	var b []byte
	if c.NAA != 0 {
		naa := binary.BigEndian.AppendUint64(nil, c.NAA)
		b = appendDesignator(b, codeSetBinary, ofLogicalUnit|designatorNAA, naa)
	}
	switch {
	case c.T10Binary:
		id := make([]byte, 8+t10Binary)
		copy(id[:8], c.Vendor)
		copy(id[8:], c.T10ID)
		b = appendDesignator(b, codeSetBinary, ofLogicalUnit|designatorT10, id)
	case c.T10ID != "":
		id := make([]byte, 8+min(len(c.T10ID), maxName-8))
		putText(id[:8], c.Vendor)
		putText(id[8:], c.T10ID)
		b = appendDesignator(b, codeSetASCII, ofLogicalUnit|designatorT10, id)
	}
	return b
}

// identificationPage is page 83h: the unit's names first, then those of the
// port and of the target device that the nexus goes through.
func identificationPage(l *itl) []byte {
	b := unitDesignators(l.unit.config)
	n := l.nexus.config
	if n.TPGT != 0 {
		port := []byte{0, 0, byte(n.TPGT >> 8), byte(n.TPGT)}
		b = appendDesignator(b, protocolISCSI|codeSetBinary, ofTargetPort|designatorPort, port)
		b = appendDesignator(b, protocolISCSI|codeSetBinary, ofTargetPort|designatorGroup, port)
	}
	b = appendName(b, ofTargetPort, n.TargetPort)
	device, _, _ := strings.Cut(n.TargetPort, ",")
	return appendName(b, ofTargetDevice, device)
}

// appendName appends a SCSI name string designator, terminated and padded with
// zeros to a multiple of four bytes.
func appendName(b []byte, association byte, name string) []byte {
	if name == "" || len(name) >= maxName {
		return b
	}
	padded := make([]byte, (len(name)+4)&^3)
	copy(padded, name)
	return appendDesignator(b, protocolISCSI|codeSetUTF8, association|designatorSCSIName, padded)
}

func appendDesignator(b []byte, codeSet, kind byte, id []byte) []byte {
	return append(append(b, codeSet, kind, 0, byte(len(id))), id...)
}

// extendedInquiryPage is page 86h (SPC-4 section 7.8.7): task attributes, and a
// volatile cache.
func extendedInquiryPage(*itl) []byte {
	const (
		attributes    = 1<<2 | 1<<1 | 1<<0 // HEADSUP, ORDSUP, SIMPSUP
		volatileCache = 1 << 0             // V_SUP
	)
	b := make([]byte, 60)
	b[5-4], b[6-4], b[13-4] = attributes, volatileCache, maxSenseBytes
	return b
}

// modePolicyPage is page 87h (SPC-4 section 7.8.9): all mode pages are shared
// by all initiators.
func modePolicyPage(*itl) []byte { return []byte{allPages, allSubpages, 0, 0} }

// portsPage is page 88h (SPC-4 section 7.8.14): the port that the nexus goes
// through.
func portsPage(l *itl) []byte {
	n := l.nexus.config
	name := appendName(nil, ofTargetPort, n.TargetPort)
	b := make([]byte, 12, 12+len(name))
	binary.BigEndian.PutUint16(b[2:], n.TPGT)
	binary.BigEndian.PutUint16(b[10:], uint16(len(name)))
	return append(b, name...)
}

// limitsPage is page B0h, block limits (SBC-3 section 6.5.3).
func limitsPage(l *itl) []byte {
	u := l.unit
	b := make([]byte, 60)
	put32 := func(at int, n uint64) { binary.BigEndian.PutUint32(b[at-4:], uint32(n)) }
	binary.BigEndian.PutUint16(b[6-4:], uint16(u.perPhysical()))
	b[5-4] = byte(min(u.inBlocks(maxCompareBytes), math.MaxUint8))
	put32(8, u.inBlocks(maxTransferBytes))
	put32(12, u.inBlocks(optimalTransferBytes))
	binary.BigEndian.PutUint64(b[36-4:], u.inBlocks(maxWriteSameBytes))
	if u.thin() {
		const alignmentValid = 1 << 31
		put32(20, u.inBlocks(maxUnmapBytes))
		put32(24, maxUnmapDescriptors)
		put32(28, max(u.inBlocks(u.unmapper.UnmapGranularity()), 1))
		put32(32, alignmentValid)
	}
	if u.writesAtomic() {
		for _, at := range []int{44, 56, 60} { // the lengths and the boundary
			put32(at, u.atomicLimit())
		}
		put32(48, u.atomicUnit())
		put32(52, u.atomicUnit())
	}
	return b
}

// characteristicsPage is page B1h. Non-rotating, as a host that sorts its
// requests for a disk arm does no good at the end of a network.
func characteristicsPage(*itl) []byte {
	const readsAfterErase = 1 << 6 // WABEREQ: blocks can be read, and hold anything
	b := make([]byte, 60)
	b[7-4] = readsAfterErase
	binary.BigEndian.PutUint16(b, 1)
	return b
}

// provisioningPage is page B2h: thin, with UNMAP and both WRITE SAMEs, and
// unmapped blocks read as zeros. There are no anchored blocks. A threshold exponent
// is there where thresholds are.
func provisioningPage(l *itl) []byte {
	const (
		lbpu, lbpws, lbpws10 = 1 << 7, 1 << 6, 1 << 5
		lbprz                = 1 << 2
		thinProvisioned      = 2
	)
	b := []byte{0, lbpu | lbpws | lbpws10 | lbprz, thinProvisioned, 0}
	if l.unit.knowsSpace() {
		b[0] = byte(l.unit.thresholdExponent())
	}
	return b
}
