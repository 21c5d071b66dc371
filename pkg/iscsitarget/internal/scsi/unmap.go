package scsi

import (
	"context"
	"encoding/binary"
)

// Limits on UNMAP, as VPD page B0h advertises them.
const (
	maxUnmapDescriptors = 256
	maxUnmapBytes       = 512 << 20
)

const (
	unmapHeaderBytes     = 8
	unmapDescriptorBytes = 16
	anchorByte           = 1
)

// thin says that the unit unmaps.
func (u *Unit) thin() bool { return u.unmapper != nil }

// decodeUnmap is UNMAP, SBC-3 section 5.25.
func decodeUnmap(r request) Command {
	length := int64(binary.BigEndian.Uint16(r.cdb[7:]))
	switch {
	case r.cdb[anchorByte]&1 != 0:
		return r.fail(invalidField(anchorByte, 0))
	case length == 0:
		return Command{}
	case length < unmapHeaderBytes:
		return r.fail(check(illegalRequest, ascParameterListLength))
	}
	return Command{Kind: Exec, Dir: DataOut, Length: length, fua: !r.itl.unit.writeCache()}
}

// extent is a range of the medium in bytes.
type extent struct{ at, length int64 }

// executeUnmap checks the whole list before it changes anything.
func executeUnmap(ctx context.Context, c Command, params []byte) ([]byte, Status) {
	extents, st := c.itl.unit.unmapList(params)
	if st.code != Good {
		return nil, st
	}
	for _, e := range extents {
		c.offset, c.span = e.at, e.length
		if st := c.inSteps(ctx, zeroStepBytes, c.unmapStep); st.code != Good {
			return nil, st
		}
	}
	return nil, c.settle()
}

func (c *Command) unmapStep(at, n int64) Status {
	return c.change(at, n, func() error { return c.itl.unit.unmapper.Unmap(at, n) })
}

// unmapList reads UNMAP's parameter list. A last descriptor that is cut short
// is ignored, as SBC-3 asks.
func (u *Unit) unmapList(params []byte) ([]extent, Status) {
	if len(params) < unmapHeaderBytes {
		return nil, check(illegalRequest, ascParameterListLength)
	}
	said := int(binary.BigEndian.Uint16(params[2:]))
	list := params[unmapHeaderBytes:]
	list = list[:min(len(list), said)]
	if len(list)/unmapDescriptorBytes > maxUnmapDescriptors {
		return nil, invalidParameter(2, 7)
	}
	var extents []extent
	left := u.inBlocks(maxUnmapBytes)
	for i := 0; i+unmapDescriptorBytes <= len(list); i += unmapDescriptorBytes {
		lba := binary.BigEndian.Uint64(list[i:])
		blocks := uint64(binary.BigEndian.Uint32(list[i+8:]))
		if st := u.checkRange(lba, blocks); st.code != Good {
			return nil, st
		}
		if blocks > left {
			return nil, invalidParameter(unmapHeaderBytes+i+8, 7)
		}
		left -= blocks
		extents = append(extents, extent{int64(lba) * u.blockSize, int64(blocks) * u.blockSize})
	}
	return extents, StatusGood
}
