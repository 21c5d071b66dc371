package mount

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

// Superblock is what an unmounted file system says of itself.
type Superblock struct {
	// Bytes is how much of the device it uses.
	Bytes int64
	// Clean: it was unmounted, and knows of no error.
	Clean bool
	// BlockBytes is its allocation unit: what a device has less than one of
	// on top of Bytes is of no use.
	BlockBytes int64
	// Sound: its checksum is right, and in the first 4096 bytes nothing else
	// lies that the device could be known by. No further look is needed to
	// mount it; to format a device it takes Filesystem.
	Sound bool
}

// Inspect reads the superblock of an unmounted file system from the device
// itself. Another type's, or none, is ErrOtherFilesystem.
func (m *Mounter) Inspect(ctx context.Context, device, fsType string) (Superblock, error) {
	buf := alignedBuffer(4096)
	err := child.Do(ctx, "read "+device, func() error {
		f, err := openDirect(device)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.ReadAt(buf, 0)
		return err
	})
	if err != nil {
		return Superblock{}, fmt.Errorf("read the superblock of %s: %w", device, err)
	}
	parse := map[string]func([]byte) (Superblock, bool){"ext4": parseExt4, "xfs": parseXFS}[fsType]
	if parse == nil {
		return Superblock{}, CheckFilesystem(or(fsType, "none"))
	}
	s, ok := parse(buf)
	if !ok {
		return Superblock{}, fmt.Errorf("%w: no %s superblock on %s", ErrOtherFilesystem, fsType, device)
	}
	return s, nil
}

// parseExt4 reads the superblock that lies 1024 bytes into the device, little
// endian (Documentation/filesystems/ext4/super.rst).
func parseExt4(edge []byte) (Superblock, bool) {
	const (
		blocksLo, logBlockSize, magic, state, incompat, blocksHi = 0x4, 0x18, 0x38, 0x3a, 0x60, 0x150

		magicValue             = 0xef53
		stateClean             = 1
		needsRecovery, is64Bit = 0x4, 0x80
	)
	b := edge[1024:2048]
	le := binary.LittleEndian
	shift := le.Uint32(b[logBlockSize:])
	if le.Uint16(b[magic:]) != magicValue || shift > 6 {
		return Superblock{}, false
	}
	features := le.Uint32(b[incompat:])
	blocks := int64(le.Uint32(b[blocksLo:]))
	if features&is64Bit != 0 {
		blocks |= int64(le.Uint32(b[blocksHi:])) << 32
	}
	size := int64(1024) << shift
	return Superblock{
		Bytes: blocks * size, BlockBytes: size,
		Clean: le.Uint16(b[state:]) == stateClean && features&needsRecovery == 0,
		Sound: soundExt4(edge),
	}, true
}

// soundExt4 wants the checksum of mke2fs' default features, and zeroes in the
// boot block, where partition tables and LVM's label lie.
func soundExt4(edge []byte) bool {
	const (
		roCompat, checksumType, checksum = 0x64, 0x175, 0x3fc
		metadataChecksum, crc32c         = 0x400, 1
	)
	le := binary.LittleEndian
	b := edge[1024:2048]
	return le.Uint32(b[roCompat:])&metadataChecksum != 0 && b[checksumType] == crc32c &&
		^crc32.Checksum(b[:checksum], castagnoli) == le.Uint32(b[checksum:]) &&
		zero(edge[:1024]) && !swap(edge)
}

// swap reports the signature at the end of a page that is swap space's header.
func swap(edge []byte) bool { return bytes.HasPrefix(edge[4096-10:], []byte("SWAP")) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// parseXFS reads the superblock at the start of the device, big endian. Its
// log tells whether it is clean, and the kernel looks at that when it mounts.
func parseXFS(b []byte) (Superblock, bool) {
	const blockSize, dataBlocks, sectorSize = 4, 8, 102
	be := binary.BigEndian
	size := int64(be.Uint32(b[blockSize:]))
	if string(b[:4]) != "XFSB" || size < 512 || size > 65536 {
		return Superblock{}, false
	}
	return Superblock{
		Bytes: int64(be.Uint64(b[dataBlocks:])) * size, BlockBytes: size, Clean: true,
		Sound: soundXFS(b, int(be.Uint16(b[sectorSize:]))),
	}, true
}

// soundXFS wants version 5's checksum, which is reckoned with zeroes in its own
// place, and the other headers of the first allocation group where LVM's label
// could lie.
func soundXFS(edge []byte, sector int) bool {
	const version, checksum = 100, 224
	if binary.BigEndian.Uint16(edge[version:])&0xf != 5 || sector != 512 && sector != 4096 {
		return false
	}
	b := bytes.Clone(edge[:sector])
	clear(b[checksum : checksum+4])
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(edge[checksum:]) {
		return false
	}
	if sector == 4096 {
		return true
	}
	for i, magic := range []string{"XAGF", "XAGI", "XAFL"} {
		if string(edge[(i+1)*512:][:4]) != magic {
			return false
		}
	}
	return !swap(edge)
}
