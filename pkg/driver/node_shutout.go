package driver

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

const (
	// shutOutInterval is the time between two looks for lost sessions.
	shutOutInterval = 10 * time.Second
	// shutOutAfter is for how long a target must have kept us out: one that an
	// administrator is about to mend may have its volumes back in a moment.
	shutOutAfter = 30 * time.Second
)

// EndShutOut ends, until ctx ends, lost sessions to volumes that were detached
// from this node while it could not be reached: the fence keeps them out for
// good, and without this all that waits for them (pods that are to end, a
// sync of the whole machine) would wait for the replacement timeout. What was
// not written is lost, as it must be: the volume may be another node's by now.
func (n *Node) EndShutOut(ctx context.Context) {
	var since map[string]time.Time
	tick := time.NewTicker(shutOutInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			since = n.endShutOut(ctx, since)
		}
	}
}

// endShutOut looks once. Since is when each volume was first seen to be shut
// out, in every look from then on, and so is the result: after a look that
// failed the time begins anew.
func (n *Node) endShutOut(ctx context.Context, since map[string]time.Time) map[string]time.Time {
	targets, err := n.disks.ShutOut(ctx, iqnPrefix)
	if err != nil {
		n.log.Debug("cannot ask the targets of lost sessions", "err", err)
		return nil
	}
	seen := map[string]time.Time{}
	for _, target := range targets {
		uuid := strings.TrimPrefix(target, iqnPrefix)
		if !isCanonicalUUID(uuid) {
			continue
		}
		first, known := since[uuid]
		if !known {
			first = time.Now()
		}
		seen[uuid] = first
		if time.Since(first) < shutOutAfter {
			continue
		}
		if err := n.failShutOut(ctx, uuid); err != nil {
			n.log.Warn("cannot end the sessions of a volume that was given away", "volume", uuid, "err", err)
		}
	}
	return seen
}

// failShutOut leaves alone a volume that a call is at work on, unless all that
// is left of the call is stuck in the kernel, most likely on this session.
func (n *Node) failShutOut(ctx context.Context, uuid string) error {
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	locked, release, err := n.locks.acquire(ctx, uuid)
	switch {
	case err == nil:
		ctx = locked
		defer release()
	case !errors.Is(err, volume.ErrPending):
		return err
	case n.locks.stuckFor(uuid) == 0:
		return nil
	}
	n.log.Warn("the volume was detached from this node while it was cut off: what was not written is given up, and its I/O fails", "volume", uuid)
	_, err = n.disks.Fail(ctx, volume.TargetName(uuid))
	return err
}
