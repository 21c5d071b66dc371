package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// An entry as it lies in the file: a head in big-endian numbers, zeros up to
// headBytes, then the data. A page of its own keeps the head apart from the data,
// so that to make it invalid touches nothing else.
const (
	headBytes = 4096

	magicAt    = 0
	versionAt  = 8
	lengthAt   = 12
	offsetAt   = 16
	ownerAt    = 24 // SHA-256 of the owner's name
	checksumAt = 56 // SHA-256 of all of that and the data
	headEnd    = 88

	magic   = "CSIETDAJ"
	version = 1
)

// entryHead is the head of an entry, with zeros behind it.
func entryHead(owner string, p []byte, off int64) (head [headBytes]byte) {
	copy(head[magicAt:], magic)
	binary.BigEndian.PutUint32(head[versionAt:], version)
	binary.BigEndian.PutUint32(head[lengthAt:], uint32(len(p)))
	binary.BigEndian.PutUint64(head[offsetAt:], uint64(off))
	hash := sha256.Sum256([]byte(owner))
	copy(head[ownerAt:], hash[:])
	copy(head[checksumAt:], checksum(head[:checksumAt], p))
	return head
}

func checksum(head, data []byte) []byte {
	h := sha256.New()
	_, _ = h.Write(head) // never fails
	_, _ = h.Write(data)
	return h.Sum(nil)
}

// readEntry returns the data and the offset of a valid entry, nil where there is
// none: an entry that is not complete was interrupted before anything else had
// changed. One that is complete and cannot be replayed is ErrCorrupt, for without
// it the device may hold half of a write.
func readEntry(f io.ReaderAt, owner string, size int64) (p []byte, off int64, err error) {
	b := make([]byte, Size)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	head, data := b[:min(n, headBytes)], b[min(n, headBytes):n]
	if len(head) < headEnd || string(head[magicAt:versionAt]) != magic {
		return nil, 0, nil
	}
	switch v := binary.BigEndian.Uint32(head[versionAt:]); v {
	case version:
	case 0: // a part of a head
		return nil, 0, nil
	default:
		return nil, 0, fmt.Errorf("format version %d, this program knows %d: %w", v, version, blockdev.ErrCorrupt)
	}
	length := binary.BigEndian.Uint32(head[lengthAt:])
	if length == 0 || int64(length) > int64(len(data)) {
		return nil, 0, nil
	}
	data = data[:length]
	if !bytes.Equal(head[checksumAt:headEnd], checksum(head[:checksumAt], data)) {
		return nil, 0, nil
	}
	hash := sha256.Sum256([]byte(owner))
	if !bytes.Equal(head[ownerAt:checksumAt], hash[:]) {
		return nil, 0, fmt.Errorf("holds an interrupted write of another device: start once with that one under this name, or remove the file if it is given up: %w", blockdev.ErrCorrupt)
	}
	off = int64(binary.BigEndian.Uint64(head[offsetAt:]))
	if blockdev.CheckRange(off, int64(length), size) != nil {
		return nil, 0, fmt.Errorf("holds an interrupted write of %d bytes at %d, behind the end of the device: %w", length, off, blockdev.ErrCorrupt)
	}
	return data, off, nil
}

// Pending says whether the file of a place holds a write that only a Device open
// for writing can complete.
func Pending(p Place, size int64) (bool, error) {
	f, err := p.Open()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() // read only
	data, _, err := readEntry(f, p.Owner, size)
	return data != nil, err
}
