package driver

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

func TestStatusError(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{errors.New("anything"), codes.Internal},
		{fmt.Errorf("volume x: %w", volume.ErrNotFound), codes.NotFound},
		{invalidField("name", "it is required"), codes.InvalidArgument},
		{fmt.Errorf("expand: %w: %w", volume.ErrOutOfRange, blockdev.ErrNoSpace), codes.OutOfRange},
		{fmt.Errorf("create: %w", blockdev.ErrNoSpace), codes.ResourceExhausted},
		{fmt.Errorf("fence: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{volume.ErrPending, codes.Aborted},
		{status.Error(codes.Unimplemented, "no"), codes.Unimplemented},
	} {
		got := statusError(tt.err)
		if status.Code(got) != tt.want {
			t.Errorf("statusError(%v) = %v, want code %v", tt.err, got, tt.want)
		}
		if tt.err != nil && status.Convert(got).Message() == "" {
			t.Errorf("statusError(%v) has no message", tt.err)
		}
	}
}

// TestErrorCodesReachable fails where an entry is shadowed by an earlier one.
func TestErrorCodesReachable(t *testing.T) {
	for _, e := range errorCodes {
		if got := errorCode(e.err); got != e.code {
			t.Errorf("%v maps to %v, its entry says %v", e.err, got, e.code)
		}
	}
}
