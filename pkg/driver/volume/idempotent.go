package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Idempotent makes a strict Service answer a repeated call as the first one:
// what exists as asked for is made, what is gone is deleted, who is in is
// attached.
func Idempotent(s Service) Service { return idempotent{s} }

type idempotent struct{ Service }

var _ Service = idempotent{}

// Create returns the volume of that name if it fits what is asked for, and
// ErrIncompatible if not.
func (s idempotent) Create(ctx context.Context, o CreateOptions) (Volume, error) {
	v, err := s.Service.Create(ctx, o)
	if !errors.Is(err, ErrNameTaken) {
		return v, err
	}
	v, err = s.Service.Find(ctx, o.Name)
	if errors.Is(err, ErrNotFound) {
		return Volume{}, fmt.Errorf("%w: the volume named %q is being deleted", ErrPending, o.Name)
	}
	if err != nil {
		return Volume{}, err
	}
	if err := o.fits(v); err != nil {
		return Volume{}, err
	}
	return v, nil
}

// fits says whether a volume is what the options would make.
func (o CreateOptions) fits(v Volume) error {
	switch {
	case !o.Size.Holds(v.Size):
		return fmt.Errorf("%w: volume %q has %d bytes", ErrIncompatible, o.Name, v.Size)
	case !sameAccess(o.Capabilities, v.Capabilities):
		return fmt.Errorf("%w: volume %q was made for another access type or file system", ErrIncompatible, o.Name)
	case !maps.Equal(ownParameters(o.Parameters), ownParameters(v.Parameters)):
		return fmt.Errorf("%w: volume %q was made with other parameters", ErrIncompatible, o.Name)
	}
	return nil
}

func ownParameters(all map[string]string) map[string]string {
	own := maps.Clone(all)
	maps.DeleteFunc(own, func(k, _ string) bool { return strings.HasPrefix(k, OrchestratorPrefix) })
	return own
}

// Delete takes a volume that is not there for deleted.
func (s idempotent) Delete(ctx context.Context, id string) error {
	return except(s.Service.Delete(ctx, id), ErrNotFound)
}

// Attach returns the live attachment of that node if it is as asked for, with
// the same generation and secrets, and ErrIncompatible if not.
func (s idempotent) Attach(ctx context.Context, id string, o AttachOptions) (Attachment, error) {
	a, err := s.Service.Attach(ctx, id, o)
	if !errors.Is(err, ErrAttached) {
		return a, err
	}
	a, err = s.Service.Readmit(ctx, id, o.Node)
	if errors.Is(err, ErrNotAttached) {
		return Attachment{}, fmt.Errorf("%w: %s is being detached", ErrPending, id)
	}
	if err != nil {
		return Attachment{}, err
	}
	if a.ReadOnly != o.ReadOnly || a.Capability != o.Capability {
		return Attachment{}, fmt.Errorf("%w: %s is attached to the node as %s", ErrIncompatible, id, a.summary())
	}
	return a, nil
}

func (a Attachment) summary() string {
	kind := a.Capability.FSType
	if a.Capability.Block {
		kind = "block"
	}
	return fmt.Sprintf("%s, %s, readonly=%t", kind, a.Capability.Mode, a.ReadOnly)
}

// Detach takes a volume or an attachment that is not there for detached.
func (s idempotent) Detach(ctx context.Context, id, nodeUUID string) error {
	return except(s.Service.Detach(ctx, id, nodeUUID), ErrNotFound, ErrNotAttached)
}

// Expand returns the size of a volume that is large enough.
func (s idempotent) Expand(ctx context.Context, id string, r SizeRange) (int64, error) {
	size, err := s.Service.Expand(ctx, id, r)
	return size, except(err, ErrNoChange)
}

// except is err unless it is one of the harmless ones.
func except(err error, harmless ...error) error {
	if slices.ContainsFunc(harmless, func(h error) bool { return errors.Is(err, h) }) {
		return nil
	}
	return err
}
