package initiator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockDir = "/run/lock/iscsi"
	// staleAfter is how old a lock must be before its holder may be taken
	// for dead. It is held for milliseconds; iscsid holds it too.
	staleAfter = 5 * time.Second
	// startSlack makes up for the coarse clock of process start times.
	startSlack = time.Second
	// userHZ is the unit of start times in /proc/<pid>/stat, a part of the
	// kernel's ABI.
	userHZ = 100
)

// settleLock waits for open-iscsi's lock and lets go of it again, before
// iscsiadm is run: that would wait 30 s for a lock that nobody holds.
func (i *Initiator) settleLock(ctx context.Context, h host) error {
	unlock, err := i.lockRecords(ctx, h)
	if err == nil {
		unlock()
	}
	return err
}

// lockRecords takes open-iscsi's lock on its records, in the host's mount
// namespace. The lock is the link lock.write to the file lock.
func (i *Initiator) lockRecords(ctx context.Context, h host) (unlock func(), err error) {
	dir := h.path(lockDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open-iscsi's lock: %w", err)
	}
	file, held := filepath.Join(dir, "lock"), filepath.Join(dir, "lock.write")
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open-iscsi's lock: %w", err)
	}
	f.Close()
	// Among ourselves a semaphore decides, so that no holder that we wait
	// for is one of us.
	if err := i.records.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("open-iscsi's lock: %w", err)
	}
	err = poll(ctx, func() (bool, error) {
		err := os.Link(file, held)
		if errors.Is(err, fs.ErrExist) {
			return false, i.breakStaleLock(held, time.Now())
		}
		return err == nil, err
	})
	if err != nil {
		i.records.Release(1)
		return nil, fmt.Errorf("open-iscsi's lock %s: %w", held, err)
	}
	return func() {
		_ = os.Remove(held)
		i.records.Release(1)
	}, nil
}

// breakStaleLock removes the lock of an iscsiadm that was killed: nothing else
// would, and every later iscsiadm on the host would wait 30 s for it. A link's
// age is the inode's change time; who started after that waits for the lock
// like us.
func (i *Initiator) breakStaleLock(held string, now time.Time) error {
	var st unix.Stat_t
	if err := unix.Lstat(held, &st); err != nil {
		return ignoreNotExist(err)
	}
	age := now.Sub(time.Unix(st.Ctim.Unix()))
	if age < staleAfter {
		return nil
	}
	pids, err := i.pidsOf("iscsiadm")
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if ran, err := i.runningFor(pid); err == nil && ran+startSlack >= age {
			return nil // it may be the holder
		}
	}
	i.log.Warn("removing a lock on open-iscsi's records whose holder is gone", "lock", held, "age", age)
	return ignoreNotExist(os.Remove(held))
}

// runningFor is how long ago a process started (proc(5), /proc/pid/stat field
// 22).
func (i *Initiator) runningFor(pid int) (time.Duration, error) {
	stat, err := attribute(filepath.Join(i.cfg.Proc, strconv.Itoa(pid)), "stat")
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const start = 22 - 3 // the fields begin with the third
	if len(fields) <= start {
		return 0, fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	ticks, err := strconv.ParseInt(fields[start], 10, 64)
	if err != nil {
		return 0, err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return 0, err
	}
	return time.Duration(up.Nano()) - time.Duration(ticks)*time.Second/userHZ, nil
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
