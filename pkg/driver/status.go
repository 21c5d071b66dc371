package driver

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/mount"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

// What the CSI edge itself fails with.
var (
	// ErrInvalidField: a field of a request is missing, oversized or
	// malformed; the message names it.
	ErrInvalidField = errors.New("invalid field")
	// ErrBadToken: a starting_token that ListVolumes did not give.
	ErrBadToken = errors.New("invalid starting_token")
)

// errorCodes is the one map from errors to gRPC codes. The first entry that
// matches decides, so that a wrapper (out of range, because of no space) goes
// before what it wraps.
var errorCodes = []struct {
	err  error
	code codes.Code
}{
	{ErrInvalidField, codes.InvalidArgument},
	{ErrInvalidNodeID, codes.NotFound},
	{ErrInvalidPublishContext, codes.InvalidArgument},
	{ErrBadToken, codes.Aborted},
	{errLeftBehind, codes.Unavailable},

	{volume.ErrUnsupported, codes.InvalidArgument},
	{volume.ErrOutOfRange, codes.OutOfRange},
	{volume.ErrNotFound, codes.NotFound},
	{volume.ErrNameTaken, codes.AlreadyExists},
	{volume.ErrIncompatible, codes.AlreadyExists},
	{volume.ErrAttached, codes.AlreadyExists},
	{volume.ErrAttachedElsewhere, codes.FailedPrecondition},
	{volume.ErrInUse, codes.FailedPrecondition},
	{volume.ErrPending, codes.Aborted},
	{volume.ErrNoRoom, codes.ResourceExhausted},
	{volume.ErrNodeFull, codes.ResourceExhausted},
	{volume.ErrClosed, codes.Unavailable},

	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},

	{errNotStaged, codes.FailedPrecondition},
	{mount.ErrUnsupported, codes.InvalidArgument},
	{mount.ErrNotEmpty, codes.FailedPrecondition},
	{mount.ErrOtherFilesystem, codes.FailedPrecondition},
	{mount.ErrDamaged, codes.FailedPrecondition},
	{mount.ErrMissingProgram, codes.FailedPrecondition},
	{initiator.ErrHost, codes.FailedPrecondition},
	{initiator.ErrRefused, codes.FailedPrecondition},
	{initiator.ErrWrongDevice, codes.FailedPrecondition},
	{initiator.ErrUnreachable, codes.Unavailable},
	{initiator.ErrNotAttached, codes.Unavailable},
	{initiator.ErrRecovering, codes.Unavailable},
	{initiator.ErrTooSmall, codes.Unavailable},

	{blockdev.ErrNotFound, codes.NotFound},
	{blockdev.ErrNoSpace, codes.ResourceExhausted},
	{blockdev.ErrClosed, codes.Unavailable},
}

// statusError turns an error into a gRPC status with the code that the CSI
// specification names. A status passes unchanged; what no entry knows is
// INTERNAL. Status details stay empty, as the specification asks.
func statusError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(errorCode(err), err.Error())
}

func errorCode(err error) codes.Code {
	for _, e := range errorCodes {
		if errors.Is(err, e.err) {
			return e.code
		}
	}
	return codes.Internal
}

// isFinal tells whether kubelet and the sidecars take an error's code to mean
// that nothing is left of the call, and come back with no call that undoes it.
func isFinal(err error) bool {
	switch errorCode(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return false
	}
	return true
}
