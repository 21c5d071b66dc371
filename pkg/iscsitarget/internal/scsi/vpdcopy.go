package scsi

import (
	"encoding/binary"
	"math"
	"time"
)

// Descriptor types of VPD page 8Fh (SPC-4, Third-Party Copy VPD page; SBC-3 for
// the first).
const (
	tpcRODLimits     = 0x0000
	tpcCommands      = 0x0001
	tpcParameters    = 0x0004
	tpcDescriptors   = 0x0008
	tpcCSCDIDs       = 0x000C
	tpcTokenFeatures = 0x0106
	tpcRODTypes      = 0x0108
	tpcOperations    = 0x8001
)

// thirdPartyPage is page 8Fh. There is no copy group identifier: a copy stays
// among the logical units of one target.
func thirdPartyPage(l *itl) []byte {
	u := l.unit
	var b []byte
	b = appendTPC(b, tpcRODLimits, u.rodLimits())
	b = appendTPC(b, tpcCommands, withLength8(copyCommands(u)))
	b = appendTPC(b, tpcParameters, copyParameters())
	b = appendTPC(b, tpcDescriptors, withLength8(copyDescriptors))
	b = appendTPC(b, tpcCSCDIDs, []byte{0, 2, thisUnit >> 8, thisUnit & 0xFF})
	b = appendTPC(b, tpcTokenFeatures, tokenFeatures())
	b = appendTPC(b, tpcRODTypes, rodTypes())
	return appendTPC(b, tpcOperations, u.copyOperations())
}

// appendTPC appends a third-party copy descriptor, padded to a multiple of four
// bytes.
func appendTPC(b []byte, kind uint16, body []byte) []byte {
	padded := make([]byte, (len(body)+3)&^3)
	copy(padded, body)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(padded)))
	return append(b, padded...)
}

func withLength8(list []byte) []byte { return append([]byte{byte(len(list))}, list...) }

// rodLimits are in logical blocks and seconds.
func (u *Unit) rodLimits() []byte {
	b := make([]byte, 32)
	binary.BigEndian.PutUint16(b[6:], maxTokenRanges)
	binary.BigEndian.PutUint32(b[8:], uint32(maxTokenTimeout/time.Second))
	binary.BigEndian.PutUint32(b[12:], uint32(defaultTokenTimeout/time.Second))
	binary.BigEndian.PutUint64(b[16:], u.inBlocks(maxTokenBytes))
	binary.BigEndian.PutUint64(b[24:], u.inBlocks(maxSegmentBytes)) // optimal
	return b
}

// copyCommands are the service actions of the command set, by opcode.
func copyCommands(u *Unit) (b []byte) {
	for _, opcode := range []byte{0x83, 0x84} {
		var actions []byte
		for _, op := range dispatch[opcode] {
			if op.in(u) {
				actions = append(actions, byte(op.action))
			}
		}
		b = append(append(b, opcode, byte(len(actions))), actions...)
	}
	return b
}

func copyParameters() []byte {
	b := make([]byte, 28)
	binary.BigEndian.PutUint16(b[4:], maxCSCDs)
	binary.BigEndian.PutUint16(b[6:], maxSegments)
	binary.BigEndian.PutUint32(b[8:], maxCopyListBytes)
	return b
}

// tokenFeatures: no token of another target device is taken, and one that is used
// lives on.
func tokenFeatures() []byte {
	const block = 48 // the block device features
	b := make([]byte, 44, 44+block)
	binary.BigEndian.PutUint32(b[16:], math.MaxUint32) // MAXIMUM TOKEN LIFETIME: no end
	binary.BigEndian.PutUint32(b[20:], uint32(maxTokenTimeout/time.Second))
	binary.BigEndian.PutUint16(b[42:], block)
	f := make([]byte, block)
	binary.BigEndian.PutUint16(f[2:], block-4)
	binary.BigEndian.PutUint64(f[8:], maxTokenBytes)
	binary.BigEndian.PutUint64(f[16:], maxSegmentBytes) // optimal
	binary.BigEndian.PutUint64(f[24:], maxSegmentBytes) // to a token, optimal
	binary.BigEndian.PutUint64(f[32:], maxSegmentBytes) // from a token, optimal
	return append(b, f...)
}

// rodTypes are what POPULATE TOKEN makes and WRITE USING TOKEN takes.
func rodTypes() []byte {
	const (
		tokenOut = 1 << 0
		tokenIn  = 1 << 1
		size     = 64
	)
	b := []byte{0, 0, 0, 0}
	for _, t := range []struct {
		rod   uint32
		flags byte
	}{
		{rodPointInTime, tokenOut}, {rodChangeCancels, tokenOut | tokenIn}, {rodAnyPointInTime, tokenOut}, {rodBlockDeviceZero, tokenIn},
	} {
		d := make([]byte, size)
		binary.BigEndian.PutUint32(d, t.rod)
		d[4] = t.flags
		b = append(b, d...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	return b
}

func (u *Unit) copyOperations() []byte {
	b := make([]byte, 32)
	binary.BigEndian.PutUint32(b[0:], maxCopies)
	binary.BigEndian.PutUint32(b[4:], maxCopies)
	binary.BigEndian.PutUint32(b[8:], maxSegmentBytes)
	b[12] = u.copyGranularity()
	return b
}
