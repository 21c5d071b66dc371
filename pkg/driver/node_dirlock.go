package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// nodeLockName is the file in the plugin's directory that a running node plugin
// holds locked.
const nodeLockName = "lock"

// LockPluginDir takes the plugin's directory for this process, and makes it
// where it is absent. One that another process has is ErrSecondPlugin: two that
// stage and unstage the same volumes do not know of each other's locks. The
// lock ends with release, or with the process however that ends.
func LockPluginDir(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("--plugin-dir: %w", err)
	}
	path := filepath.Join(dir, nodeLockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--plugin-dir: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w: it holds %s locked; stop it, or give this one a --plugin-dir and a --kubelet-root of its own", ErrSecondPlugin, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}
