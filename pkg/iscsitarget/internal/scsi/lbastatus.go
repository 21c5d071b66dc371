package scsi

import (
	"context"
	"encoding/binary"
	"math"
)

const (
	lbaStatusHeader     = 8
	lbaStatusDescriptor = 16
	// maxLBAStatus bounds the descriptors of one answer; the initiator asks
	// again from where they end.
	maxLBAStatus = 1024
	// Values of PROVISIONING STATUS.
	statusMapped      = 0
	statusDeallocated = 1
)

// mapped says that the unit knows what of it is allocated.
func (u *Unit) maps() bool { return u.mapper != nil }

// decodeLBAStatus is GET LBA STATUS, SBC-3 section 5.4.
func decodeLBAStatus(r request) Command {
	u := r.itl.unit
	lba := bigEndian(r.cdb[2:10])
	if lba >= uint64(u.blocks.Load()) {
		return r.fail(check(illegalRequest, ascLBAOutOfRange))
	}
	allocation := bigEndian(r.cdb[10:14])
	if allocation < lbaStatusHeader+lbaStatusDescriptor {
		return r.fail(invalidField(10, 7))
	}
	c := Command{Kind: Exec, Dir: DataIn, offset: int64(lba) * u.blockSize}
	c.Length = int64(min(allocation, lbaStatusHeader+maxLBAStatus*lbaStatusDescriptor))
	return c
}

// executeLBAStatus describes the blocks from the one named on, as many extents
// as the initiator has room for.
func executeLBAStatus(ctx context.Context, c Command, _ []byte) ([]byte, Status) {
	u := c.itl.unit
	b := make([]byte, lbaStatusHeader)
	end := u.blocks.Load() * u.blockSize
	for at := c.offset; at < end && int64(len(b)+lbaStatusDescriptor) <= c.Length; {
		if ctx.Err() != nil {
			return nil, StatusTaskAborted
		}
		status, n, err := u.statusAt(at, end)
		if err != nil {
			return nil, u.readFailed(err, at)
		}
		b = binary.BigEndian.AppendUint64(b, uint64(at/u.blockSize))
		b = binary.BigEndian.AppendUint32(b, uint32(n/u.blockSize))
		b = append(b, status, 0, 0, 0)
		at += n
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b, StatusGood
}

// statusAt is the provisioning status of a byte, and for how many bytes, whole
// blocks, it is the same. A block of which a part is allocated is mapped.
func (u *Unit) statusAt(at, end int64) (status byte, n int64, err error) {
	mapped, n, err := u.mapper.Mapped(at)
	if err != nil {
		return 0, 0, err
	}
	n = min(n, end-at, int64(math.MaxUint32)*u.blockSize)
	if mapped {
		return statusMapped, (n + u.blockSize - 1) / u.blockSize * u.blockSize, nil
	}
	if n < u.blockSize {
		return statusMapped, u.blockSize, nil
	}
	return statusDeallocated, n / u.blockSize * u.blockSize, nil
}
