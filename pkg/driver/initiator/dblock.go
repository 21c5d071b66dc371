package initiator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockDir = "/run/lock/iscsi"
	// staleAfter is how old the lock of a process that may be dead must be;
	// iscsiadm holds it for milliseconds and waits 30 s for it.
	staleAfter = 30 * time.Second
)

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
	err = poll(ctx, func() (bool, error) {
		err := os.Link(file, held)
		if errors.Is(err, fs.ErrExist) {
			return false, i.breakStaleLock(held, time.Now())
		}
		return err == nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("open-iscsi's lock %s: %w", held, err)
	}
	return func() { _ = os.Remove(held) }, nil
}

// breakStaleLock removes the lock of an iscsiadm that was killed: nothing else
// would, and every later iscsiadm on the host would wait 30 s for it. A link's
// age is the inode's change time.
func (i *Initiator) breakStaleLock(held string, now time.Time) error {
	var st unix.Stat_t
	if err := unix.Lstat(held, &st); err != nil {
		return ignoreNotExist(err)
	}
	age := now.Sub(time.Unix(st.Ctim.Unix()))
	if age < staleAfter {
		return nil
	}
	if _, err := i.pidOf("iscsiadm"); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	i.log.Warn("removing a lock on open-iscsi's records whose holder is gone", "lock", held, "age", age)
	return ignoreNotExist(os.Remove(held))
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
