package blockdev

import (
	"errors"
	"fmt"
)

// What a Device or a Pool fails with; test with errors.Is. Messages name the
// volume or the path.
var (
	// ErrNotFound: no volume has that id.
	ErrNotFound = errors.New("volume not found")
	// ErrExists: a volume of that id exists.
	ErrExists = errors.New("volume exists")
	// ErrBusy: the volume, or the pool, is in use.
	ErrBusy = errors.New("in use")
	// ErrNoSpace: the pool or the file system is full.
	ErrNoSpace = errors.New("no space left")
	// ErrShrink: a volume can only grow.
	ErrShrink = errors.New("a volume cannot shrink")
	// ErrInvalid: an argument that no volume could have.
	ErrInvalid = errors.New("invalid argument")
	// ErrCorrupt: what lies in the pool is not what was written there.
	ErrCorrupt = errors.New("corrupt")
	// ErrOutOfRange: an offset or length beyond the end of the device.
	ErrOutOfRange = errors.New("out of range")
	// ErrWouldBlock: the data is not in memory.
	ErrWouldBlock = errors.New("would block")
	// ErrFetching is an ErrWouldBlock: the data is being read into memory.
	ErrFetching = fmt.Errorf("%w: the data is on its way", ErrWouldBlock)
	// ErrCannotCopy: a RangeCopier leaves this copy to its caller.
	ErrCannotCopy = errors.New("cannot copy from there")
	// ErrLostWrites: an earlier Sync failed, so writes before it may be
	// lost.
	ErrLostWrites = errors.New("writes may have been lost")
	// ErrClosed: the device or the pool was closed.
	ErrClosed = errors.New("closed")
)
