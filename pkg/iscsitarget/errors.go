package iscsitarget

import "errors"

// What Server and Target fail with; test with errors.Is.
var (
	// ErrTargetExists: a target of that name was added before.
	ErrTargetExists = errors.New("target exists")
	// ErrTargetNotFound: no target has that name.
	ErrTargetNotFound = errors.New("target not found")
	// ErrTargetRemoved: the target is being, or was, removed.
	ErrTargetRemoved = errors.New("target was removed")
	// ErrLUNNotFound: the target has no logical unit of that number.
	ErrLUNNotFound = errors.New("LUN not found")
	// ErrFencing: a Revoke of that initiator has not come to its end. Call
	// Revoke until it returns nil, then Permit.
	ErrFencing = errors.New("initiator is being fenced")
	// ErrInvalid: a name or value that the target cannot have.
	ErrInvalid = errors.New("invalid argument")
	// ErrServerClosed: Shutdown was called.
	ErrServerClosed = errors.New("iSCSI server is closed")
)
