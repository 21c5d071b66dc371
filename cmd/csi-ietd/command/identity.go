package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// identity is who ietd is to run as; -1 is who it runs as already.
type identity struct{ uid, gid int }

// lookUp takes names or numbers of users and groups that there are; empty is -1. A user
// without a group has the user's own.
func lookUp(uid, gid string) (who identity, err error) {
	who = identity{-1, -1}
	if uid != "" {
		u, err := user.Lookup(uid)
		if err != nil {
			if u, err = user.LookupId(uid); err != nil {
				return who, fmt.Errorf("--uid %.64q: there is no such user: %w", uid, err)
			}
		}
		if who.uid, err = strconv.Atoi(u.Uid); err != nil {
			return who, err
		}
		if who.gid, err = strconv.Atoi(u.Gid); err != nil {
			return who, err
		}
	}
	if gid != "" {
		g, err := user.LookupGroup(gid)
		if err != nil {
			if g, err = user.LookupGroupId(gid); err != nil {
				return who, fmt.Errorf("--gid %.64q: there is no such group: %w", gid, err)
			}
		}
		if who.gid, err = strconv.Atoi(g.Gid); err != nil {
			return who, err
		}
	}
	return who, nil
}

// become gives up all other rights, in every thread.
func (w identity) become() error {
	if w.gid >= 0 {
		if err := syscall.Setgroups([]int{w.gid}); err != nil {
			return fmt.Errorf("setgroups to %d: %w", w.gid, err)
		}
		if err := syscall.Setgid(w.gid); err != nil {
			return fmt.Errorf("setgid to %d: %w", w.gid, err)
		}
	}
	if w.uid >= 0 {
		if err := syscall.Setuid(w.uid); err != nil {
			return fmt.Errorf("setuid to %d: %w", w.uid, err)
		}
	}
	return nil
}

// makeDir makes a directory that is the identity's own. One that is there is left as it
// is.
func (w identity) makeDir(dir string, mode fs.FileMode) error {
	_, err := os.Stat(dir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	if w.uid < 0 && w.gid < 0 {
		return nil
	}
	return os.Chown(dir, w.uid, w.gid)
}

// mayRead opens files as the identity would, which it must be able to do again later:
// for reading, or for both; in a directory it must be able to make files. Those that do
// not exist are no matter.
func (w identity) mayRead(files map[string]bool) error {
	if w.uid < 0 && w.gid < 0 {
		return nil
	}
	done := make(chan error)
	go func() {
		// The thread has the rights of the identity, and ends with this goroutine.
		runtime.LockOSThread()
		done <- w.tryOpen(files)
	}()
	return <-done
}

// tryOpen changes this thread's rights to files, for good.
func (w identity) tryOpen(files map[string]bool) error {
	if w.gid >= 0 {
		groups := []uint32{uint32(w.gid)}
		if err := setThreadGroups(groups); err != nil {
			return err
		}
		if _, err := unix.SetfsgidRetGid(w.gid); err != nil {
			return err
		}
	}
	if w.uid >= 0 {
		if _, err := unix.SetfsuidRetUid(w.uid); err != nil {
			return err
		}
	}
	var errs []error
	for path, writes := range files {
		flags := unix.O_RDONLY
		if writes {
			flags = unix.O_RDWR
		}
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		switch {
		case err == nil:
			_ = unix.Close(fd)
		case errors.Is(err, unix.EISDIR):
			if err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
				errs = append(errs, fmt.Errorf("%s: uid %d, gid %d could not make files in it: %w", path, w.uid, w.gid, err))
			}
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENXIO):
			errs = append(errs, fmt.Errorf("%s: uid %d, gid %d could not open it again, for SIGHUP or ietadm: %w", path, w.uid, w.gid, err))
		}
	}
	return errors.Join(errs...)
}

// setThreadGroups is setgroups of this thread alone.
func setThreadGroups(gids []uint32) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(unsafe.Pointer(&gids[0])), 0) //nolint:gosec // the kernel's interface
	if errno != 0 {
		return errno
	}
	return nil
}
