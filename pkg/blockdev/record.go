package blockdev

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
)

// MaxMeta is the longest Meta of a Record, in bytes.
const MaxMeta = 256 << 10

// MaxState is the longest state of a StateKeeper, in bytes.
const MaxState = 512 << 10

// Validate says what no volume's record could hold; the error is ErrInvalid
// and names the field.
func (r Record) Validate() error {
	if err := ValidateID(r.ID); err != nil {
		return err
	}
	if r.BlockSize != 512 && r.BlockSize != 4096 {
		return fmt.Errorf("volume %s: block size %d is neither 512 nor 4096: %w", r.ID, r.BlockSize, ErrInvalid)
	}
	if r.Size <= 0 || r.Size%int64(r.BlockSize) != 0 {
		return fmt.Errorf("volume %s: size %d is not a positive multiple of its block size %d: %w", r.ID, r.Size, r.BlockSize, ErrInvalid)
	}
	return ValidateMeta(r.ID, r.Meta)
}

// ValidateID accepts a canonical lower-case UUID and nothing else, so that an
// id is safe as a file name; the error is ErrInvalid.
func ValidateID(id string) error {
	u, err := uuid.Parse(id)
	if err != nil || u.String() != id {
		return fmt.Errorf("volume id %.64q is not a lower-case UUID: %w", id, ErrInvalid)
	}
	return nil
}

// ValidateMeta accepts no Meta or one JSON value of MaxMeta bytes at most; the
// error is ErrInvalid and never repeats the value, which may hold secrets.
func ValidateMeta(id string, meta json.RawMessage) error {
	if len(meta) > MaxMeta {
		return fmt.Errorf("volume %s: meta of %d bytes, more than %d: %w", id, len(meta), MaxMeta, ErrInvalid)
	}
	if len(meta) > 0 && !json.Valid(meta) {
		return fmt.Errorf("volume %s: meta is not JSON: %w", id, ErrInvalid)
	}
	return nil
}

// ValidateState accepts no state or one JSON value of MaxState bytes at most; the
// error is ErrInvalid.
func ValidateState(state json.RawMessage) error {
	if len(state) > MaxState {
		return fmt.Errorf("state of %d bytes, more than %d: %w", len(state), MaxState, ErrInvalid)
	}
	if len(state) > 0 && !json.Valid(state) {
		return fmt.Errorf("state is not JSON: %w", ErrInvalid)
	}
	return nil
}

// CheckBlockSize says what no logical block length of a Device, in bytes, could be: it
// is a power of two from 512 to 4096, which is what Linux takes for a disk. The error
// is ErrInvalid.
func CheckBlockSize(n int) error {
	switch n {
	case 512, 1024, 2048, 4096:
		return nil
	}
	return fmt.Errorf("block size %d is none of 512, 1024, 2048 and 4096: %w", n, ErrInvalid)
}

// CheckRange returns ErrOutOfRange unless [off, off+n) lies within size bytes;
// no sum of them can overflow.
func CheckRange(off, n, size int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("offset %d, length %d of %d bytes: %w", off, n, size, ErrOutOfRange)
	}
	return nil
}

// Overlap says whether two ranges of n bytes of one medium share a byte.
func Overlap(a, b, n int64) bool { return n > 0 && a < b+n && b < a+n }
