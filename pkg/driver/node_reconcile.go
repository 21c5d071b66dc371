package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/driver/initiator"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
)

const (
	// reconcileTimeout bounds the work on one volume: a target that is gone
	// must not keep the others waiting.
	reconcileTimeout = 2 * time.Minute
	// reconcileInterval is the time between two looks.
	reconcileInterval = 10 * time.Minute
	// reconcileRetry is when what could not be done is tried again; iscsid
	// may not have been started yet.
	reconcileRetry = time.Minute
)

// Reconcile takes off this node, at once and then now and again until ctx ends,
// what no staged volume owns: after a reboot the records of volumes that may be
// elsewhere by now; what a plugin left that was killed in the middle of a call
// that nobody repeats; a login that iscsid finished when nobody waited for it
// any more. CSI calls may run beside it.
//
// It takes nothing away that is in use: not a volume that a call is at work
// on, not a staged one whose session is there, whatever its state, and not a
// disk that is mounted or held by anybody.
func (n *Node) Reconcile(ctx context.Context) {
	told := ""
	for {
		wait := reconcileInterval
		if err := n.reconcile(ctx); err != nil {
			wait = reconcileRetry
			// Once is enough: a node without iscsid stays so for long.
			if err.Error() != told {
				n.log.Warn("not all that former stagings may have left could be removed; trying again", "err", err)
			}
			told = err.Error()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (n *Node) reconcile(ctx context.Context) error {
	uuids, err := n.tracesOfVolumes(ctx)
	for _, uuid := range uuids {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failed := n.reconcileVolume(ctx, uuid); failed != nil {
			err = errors.Join(err, fmt.Errorf("volume %s: %w", uuid, failed))
		}
	}
	return err
}

// tracesOfVolumes returns the UUIDs of the volumes that this node has a stage
// file, a session or a record of, as far as it could look.
func (n *Node) tracesOfVolumes(ctx context.Context) ([]string, error) {
	kept, err := n.stages.list()
	found := map[string]bool{}
	for _, uuid := range kept {
		found[uuid] = true
	}
	targets, lookErr := n.disks.Targets(ctx, iqnPrefix)
	for _, target := range targets {
		if uuid := strings.TrimPrefix(target, iqnPrefix); isCanonicalUUID(uuid) {
			found[uuid] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), errors.Join(err, lookErr)
}

// reconcileVolume returns nil when the volume needs nothing more.
func (n *Node) reconcileVolume(ctx context.Context, uuid string) error {
	ctx, cancel := context.WithTimeout(ctx, reconcileTimeout)
	defer cancel()
	ctx, release, err := n.locks.acquire(ctx, uuid)
	if errors.Is(err, volume.ErrPending) {
		return nil // whoever is at work on it knows better
	}
	if err != nil {
		return err
	}
	defer release()
	st, err := n.stages.load(uuid)
	if err != nil {
		return ignoreBadStage(err)
	}
	if owned, err := n.owned(ctx, uuid, st); owned || err != nil {
		return err
	}
	n.log.Info("removing what is left of a staging", "volume", uuid)
	err = n.takeOff(ctx, uuid, st)
	if errors.Is(err, volume.ErrInUse) || errors.Is(err, initiator.ErrWrongDevice) {
		n.log.Warn("what is left of a staging is in use and stays", "volume", uuid, "err", err)
		return nil
	}
	return err
}

// ignoreBadStage: of a file that does not parse nobody knows whether its volume
// is staged; Unstage will deal with it.
func ignoreBadStage(err error) error {
	if errors.Is(err, errBadStage) {
		return nil
	}
	return err
}

// owned tells whether kubelet takes the volume for staged, and so will come
// back for it: the stage was finished, and this is not the node after a reboot,
// which has neither a session nor a mount of it.
//
// To a stage that the last plugin did not finish kubelet comes back soon, and
// would find us at work on it.
func (n *Node) owned(ctx context.Context, uuid string, st *stage) (bool, error) {
	switch {
	case st == nil:
		return false, nil
	case !st.Staged:
		return time.Since(n.started) < reconcileInterval, nil
	}
	attached, err := n.disks.Attached(volume.TargetName(uuid))
	if attached || err != nil {
		return attached, err
	}
	for _, path := range st.paths() {
		if entries, err := n.mounts.At(path); err != nil || len(entries) > 0 {
			return true, err
		}
	}
	return false, nil
}

// takeOff is teardown for a volume that nobody asked to be taken off. Without a
// stage file, a disk that anybody holds is in use, whatever the state of its
// session.
func (n *Node) takeOff(ctx context.Context, uuid string, st *stage) error {
	if st == nil {
		disks, err := n.disks.Disks(volume.TargetName(uuid))
		if err == nil {
			err = n.notHeld(ctx, disks)
		}
		if err != nil {
			return err
		}
		return n.teardown(ctx, uuid, nil)
	}
	n.wipeHalfMade(ctx, uuid, st)
	if err := n.teardown(ctx, uuid, st); err != nil {
		return err
	}
	if st.Formatting {
		return nil // the file tells the next Stage
	}
	return n.stages.remove(uuid)
}
