package initiator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

const (
	// detachRecovery is the recovery_tmo, in seconds, of a session whose
	// disk was flushed and is being removed.
	detachRecovery = "5"
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
// outlived its session would meet the next one under its name. Those of a lost
// session go with the session: deleting one first would wait for the target.
func (i *Initiator) removeDisks(ctx context.Context, s session) error {
	devices, err := i.sysfs.devices(s)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := i.removeDisk(ctx, s, d); err != nil {
			return err
		}
	}
	return nil
}

func (i *Initiator) removeDisk(ctx context.Context, s session, d scsiDevice) error {
	if err := i.removeMapOver(ctx, d); err != nil || s.state != loggedIn {
		return err
	}
	if d.disk != "" {
		i.flush(ctx, d)
	}
	// Should the target be lost from here on, nothing waits for it long. The
	// kernel takes this only while the session is up.
	err := i.writeAttribute(ctx, filepath.Join(s.dir, "recovery_tmo"), detachRecovery)
	if err := ignoreNotExist(err); err != nil {
		i.log.Warn("cannot shorten a session's recovery", "session", s.id, "err", err)
	}
	err = i.writeAttribute(ctx, filepath.Join(d.dir, "delete"), "1")
	if err := ignoreNotExist(err); err != nil {
		return fmt.Errorf("delete the SCSI device %s: %w", filepath.Base(d.dir), err)
	}
	return nil
}

func (i *Initiator) removeMapOver(ctx context.Context, d scsiDevice) error {
	if d.disk == "" {
		return nil
	}
	over, err := i.sysfs.mapOver(d.disk)
	if err != nil || over == "" {
		return err
	}
	return i.removeMap(ctx, over)
}

// flush writes back what the page cache holds of a disk. What cannot be
// written is lost whether or not the device stays, so a failure is only told.
func (i *Initiator) flush(ctx context.Context, d scsiDevice) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	path := filepath.Join(i.cfg.Dev, d.disk)
	err := child.Do(ctx, "flush "+path, func() error { return i.cfg.Flush(path) })
	if err != nil {
		i.log.Error("cannot flush a disk before it is removed", "disk", d.disk, "err", err)
	}
}

// flushDevice writes back and drops a block device's page cache.
func flushDevice(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)
}

// Fail ends the lost sessions of a target, so that I/O that waits for them
// fails; live sessions go on. (The kernel takes no shorter recovery_tmo for a
// session that is lost already.) What was not written is lost: only for a
// volume that is being detached. It tells whether there was a lost session.
func (i *Initiator) Fail(ctx context.Context, target string) (bool, error) {
	sessions, err := i.sysfs.sessions(target)
	if err != nil {
		return false, err
	}
	lost := slices.DeleteFunc(sessions, func(s session) bool { return s.state == loggedIn })
	if len(lost) == 0 {
		return false, nil
	}
	h, err := i.host(ctx)
	if err != nil {
		return true, err
	}
	for _, s := range lost {
		err = errors.Join(err, i.logoutSession(ctx, h, s.id))
	}
	return true, err
}

func (i *Initiator) logoutSession(ctx context.Context, h host, id string) error {
	return ignoreExit(h.iscsiadm(ctx, "-m", "session", "-r", id, "--logout"), exitNoObjects, exitSessionNotFound)
}

// logout ends the sessions of a target by its name, and one by one those that
// iscsiadm did not match with a record.
func (i *Initiator) logout(ctx context.Context, h host, target string, sessions []session) error {
	if err := i.settleLock(ctx, h); err != nil {
		return err
	}
	err := ignoreExit(h.iscsiadm(ctx, "-m", "node", "-T", target, "--logout"), exitNoObjects, exitSessionNotFound)
	for _, s := range sessions {
		rest, _ := i.sysfs.sessions(target)
		if !slices.ContainsFunc(rest, func(r session) bool { return r.id == s.id }) {
			continue
		}
		err = errors.Join(err, i.logoutSession(ctx, h, s.id))
	}
	if gone := i.awaitSessions(ctx, target, 0); gone != nil {
		return errors.Join(err, gone)
	}
	return nil
}

// awaitSessions waits until no more than n sessions to a target are left.
func (i *Initiator) awaitSessions(ctx context.Context, target string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		rest, err := i.sysfs.sessions(target)
		return len(rest) <= n, err
	})
	if err != nil {
		return fmt.Errorf("a session to %s does not end: %w", target, err)
	}
	return nil
}

func ignoreExit(err error, codes ...int) error {
	if code, ok := child.ExitCode(err); ok && slices.Contains(codes, code) {
		return nil
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
