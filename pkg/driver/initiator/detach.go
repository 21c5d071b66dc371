package initiator

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

const (
	// failNow is the recovery_tmo, in seconds, of a session that is given
	// up: I/O that waits for it fails after that.
	failNow = "1"
	// flushTimeout bounds the flush of a disk whose session is up.
	flushTimeout = 60 * time.Second
	// goneTimeout is how long the kernel may take to end a session after
	// logout.
	goneTimeout = 15 * time.Second
)

// Detach removes every trace of a target from this node: multipath map, disks,
// sessions, records, in this order. It finds them by the target's name alone,
// so it works when disk or target are gone, and is nothing where there are
// none. Nobody may use the disk. It returns nil only when nothing is left,
// else ErrLeftOver or what stood in the way.
func (i *Initiator) Detach(ctx context.Context, target string) error {
	sessions, err := i.sysfs.sessions(target)
	if err != nil {
		return err
	}
	h, hostErr := i.host(ctx)
	if hostErr != nil && len(sessions) > 0 {
		return hostErr
	}
	for _, s := range sessions {
		if err := i.removeDisks(ctx, s); err != nil {
			return fmt.Errorf("%w: %w", ErrLeftOver, err)
		}
	}
	if len(sessions) > 0 {
		if err := i.logout(ctx, h, target, sessions); err != nil {
			return fmt.Errorf("%w: %w", ErrLeftOver, err)
		}
	}
	if hostErr != nil {
		return i.noRecordsWithoutHost(target, hostErr)
	}
	if err := i.deleteRecords(ctx, h, target); err != nil {
		return fmt.Errorf("%w: %w", ErrLeftOver, err)
	}
	return i.proveGone(h, target)
}

// noRecordsWithoutHost is for a machine without iscsid: no session can be
// there, and what records there are lie in our own mount namespace if at all.
func (i *Initiator) noRecordsWithoutHost(target string, hostErr error) error {
	if hasRecords(host{}, target) {
		return fmt.Errorf("%w: records of %s remain: %w", ErrLeftOver, target, hostErr)
	}
	return nil
}

// removeDisks flushes and deletes the SCSI devices of a session. A device that
// outlived its session would meet the next one under its name.
func (i *Initiator) removeDisks(ctx context.Context, s session) error {
	up := s.state == loggedIn
	if !up {
		i.failSession(ctx, s)
	}
	devices, err := i.sysfs.devices(s)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := i.removeDisk(ctx, d, up); err != nil {
			return err
		}
	}
	return nil
}

func (i *Initiator) removeDisk(ctx context.Context, d scsiDevice, up bool) error {
	if d.disk != "" {
		over, err := i.sysfs.mapOver(d.disk)
		if err != nil {
			return err
		}
		if over != "" {
			if err := i.removeMap(ctx, over); err != nil {
				return err
			}
		}
		if up {
			i.flush(ctx, d)
		}
	}
	err := i.writeAttribute(ctx, filepath.Join(d.dir, "delete"), "1")
	if err := ignoreNotExist(err); err != nil {
		return fmt.Errorf("delete the SCSI device %s: %w", filepath.Base(d.dir), err)
	}
	return nil
}

// flush writes back what the page cache holds of a disk. What cannot be
// written is lost whether or not the device stays, so a failure is only told.
func (i *Initiator) flush(ctx context.Context, d scsiDevice) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if _, err := i.run.Run(ctx, "blockdev", "--flushbufs", filepath.Join(i.cfg.Dev, d.disk)); err != nil {
		i.log.Error("cannot flush a disk before it is removed", "disk", d.disk, "err", err)
	}
}

// Fail makes I/O fail that waits for the target's lost sessions; live sessions
// go on. Unwritten data is lost: only for a volume that is being detached.
// It tells whether there was a lost session.
func (i *Initiator) Fail(ctx context.Context, target string) (bool, error) {
	sessions, err := i.sysfs.sessions(target)
	if err != nil {
		return false, err
	}
	lost := false
	for _, s := range sessions {
		if s.state != loggedIn {
			i.failSession(ctx, s)
			lost = true
		}
	}
	return lost, nil
}

func (i *Initiator) failSession(ctx context.Context, s session) {
	err := i.writeAttribute(ctx, filepath.Join(s.dir, "recovery_tmo"), failNow)
	if err := ignoreNotExist(err); err != nil {
		i.log.Warn("cannot shorten a lost session's recovery", "session", s.id, "err", err)
	}
}

// logout ends the sessions of a target by its name, and one by one those that
// iscsiadm did not match with a record.
func (i *Initiator) logout(ctx context.Context, h host, target string, sessions []session) error {
	err := ignoreExit(h.iscsiadm(ctx, "-m", "node", "-T", target, "--logout"), exitNoObjects, exitSessionNotFound)
	for _, s := range sessions {
		if rest, _ := i.sysfs.sessions(target); !contains(rest, s.id) {
			continue
		}
		err = errors.Join(err, ignoreExit(h.iscsiadm(ctx, "-m", "session", "-r", s.id, "--logout"), exitNoObjects, exitSessionNotFound))
	}
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	gone := poll(ctx, func() (bool, error) {
		rest, err := i.sysfs.sessions(target)
		return len(rest) == 0, err
	})
	if gone != nil {
		return errors.Join(err, fmt.Errorf("a session to %s does not end: %w", target, gone))
	}
	return nil
}

func contains(sessions []session, id string) bool {
	for _, s := range sessions {
		if s.id == id {
			return true
		}
	}
	return false
}

func ignoreExit(err error, codes ...int) error {
	if got, ok := child.ExitCode(err); ok {
		for _, code := range codes {
			if got == code {
				return nil
			}
		}
	}
	return err
}

// proveGone looks once more.
func (i *Initiator) proveGone(h host, target string) error {
	sessions, err := i.sysfs.sessions(target)
	switch {
	case err != nil:
		return err
	case len(sessions) > 0:
		return fmt.Errorf("%w: session %s to %s is still there", ErrLeftOver, sessions[0].id, target)
	case hasRecords(h, target):
		return fmt.Errorf("%w: a record of %s is still there", ErrLeftOver, target)
	}
	return nil
}
