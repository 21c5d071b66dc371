package volume

import "errors"

// What a [Service] fails with; test with errors.Is. Messages name the volume
// or the node. Errors of the pool below (package blockdev) and of contexts
// pass through, wrapped.
var (
	// ErrNotFound: no volume has that id, or it is being deleted.
	ErrNotFound = errors.New("volume not found")
	// ErrNameTaken: a volume of that name exists.
	ErrNameTaken = errors.New("volume name is taken")
	// ErrIncompatible: what exists under that name, or on that node, is not
	// what is asked for.
	ErrIncompatible = errors.New("exists with other properties")
	// ErrAttached: the volume is attached to that node already.
	ErrAttached = errors.New("volume is attached already")
	// ErrNotAttached: the volume is not attached to that node and nothing
	// of an earlier attachment is left.
	ErrNotAttached = errors.New("volume is not attached")
	// ErrAttachedElsewhere: another node holds the volume in a mode that
	// does not share.
	ErrAttachedElsewhere = errors.New("volume is attached to another node")
	// ErrNodeFull: the node has as many volumes as it may.
	ErrNodeFull = errors.New("the node has as many volumes as it may have")
	// ErrInUse: the volume has live attachments.
	ErrInUse = errors.New("volume is in use")
	// ErrPending: another call for the same volume or name is at work.
	ErrPending = errors.New("another operation on the volume is pending")
	// ErrNoRoom: the pool may not promise that much now.
	ErrNoRoom = errors.New("not enough room in the pool")
	// ErrOutOfRange: no volume can have that size.
	ErrOutOfRange = errors.New("size out of range")
	// ErrNoChange: the volume is as large as asked for, or larger.
	ErrNoChange = errors.New("volume is large enough")
	// ErrUnsupported: a capability or parameter that this driver has not.
	ErrUnsupported = errors.New("not supported")
	// ErrClosed: the service is shutting down.
	ErrClosed = errors.New("shutting down")
)
