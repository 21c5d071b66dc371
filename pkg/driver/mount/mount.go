package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

// maxLayers bounds the mounts at one path that Unmount takes away.
const maxLayers = 16

func splitOptions(options string) []string { return strings.Split(options, ",") }

// Mount mounts a device's file system at a directory, which it makes, and
// proves it. number is the device's "major:minor".
func (m *Mounter) Mount(ctx context.Context, device, number, path, fsType string, flags []string, readOnly bool) error {
	if err := makeDir(path); err != nil {
		return err
	}
	options := slices.Concat(filesystems[fsType].options, flags)
	if readOnly {
		options = append(options, "ro")
	}
	args := []string{"-t", fsType}
	if len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	if _, err := m.run.Run(ctx, "mount", append(args, "--", device, path)...); err != nil {
		return fmt.Errorf("mount %s: %w", device, explain(err))
	}
	return m.Verify(path, number, readOnly)
}

// Verify returns ErrWrongMount unless exactly one mount lies at path, and it
// is the device's, writable or not as wanted.
func (m *Mounter) Verify(path, number string, readOnly bool) error {
	entries, err := m.At(path)
	switch {
	case err != nil:
		return err
	case len(entries) == 0:
		return fmt.Errorf("%w: nothing is mounted at %s", ErrWrongMount, path)
	case len(entries) > 1:
		return fmt.Errorf("%w: %d mounts lie at %s", ErrWrongMount, len(entries), path)
	case entries[0].Number != number:
		return fmt.Errorf("%w: device %s is mounted at %s, not %s", ErrWrongMount, entries[0].Number, path, number)
	case entries[0].ReadOnly != readOnly:
		return fmt.Errorf("%w: the mount at %s has read-only %v, not %v", ErrWrongMount, path, entries[0].ReadOnly, readOnly)
	}
	return nil
}

// Bind shows a mounted directory at another path, which it makes, and proves
// it.
func (m *Mounter) Bind(ctx context.Context, source, number, path string, flags []string, readOnly bool) error {
	if err := makeDir(path); err != nil {
		return err
	}
	if err := m.bind(ctx, source, path, flags, readOnly); err != nil {
		return err
	}
	return m.Verify(path, number, readOnly)
}

// bind makes its system calls itself: unlike those of Mount and Unmount they
// wait for no device, so no program need stand in for us.
func (m *Mounter) bind(ctx context.Context, source, path string, flags []string, readOnly bool) error {
	what := "bind to " + path
	err := child.Do(ctx, what, func() error {
		return os.NewSyscallError(what, m.mount(source, path, "", unix.MS_BIND, ""))
	})
	options := bindFlags(flags)
	if readOnly {
		options |= unix.MS_RDONLY
	}
	if err != nil || options == 0 {
		return err
	}
	// The kernel ignores options when it makes a bind mount.
	what = "set the options of " + path
	err = child.Do(ctx, what, func() error {
		return os.NewSyscallError(what, m.mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|options, ""))
	})
	if err != nil {
		return errors.Join(err, m.Unmount(ctx, path))
	}
	return nil
}

// bindFlags are the options that belong to a mount; the others belong to its
// file system and were given when that was mounted.
func bindFlags(flags []string) uintptr {
	perMount := map[string]uintptr{
		"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
		"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
		"nosymfollow": unix.MS_NOSYMFOLLOW,
	}
	var out uintptr
	for _, f := range flags {
		out |= perMount[f]
	}
	return out
}

// BindDevice shows a block device node at a file, which it makes, and proves
// it.
func (m *Mounter) BindDevice(ctx context.Context, device, number, path string) error {
	if err := makeFile(path); err != nil {
		return err
	}
	if err := m.bind(ctx, device, path, nil, false); err != nil {
		return err
	}
	return m.VerifyDevice(path, number)
}

// VerifyDevice returns ErrWrongMount unless a bind mount at path shows the
// block device of that "major:minor".
func (m *Mounter) VerifyDevice(path, number string) error {
	entries, err := m.At(path)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	shown := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if len(entries) != 1 || st.Mode&unix.S_IFMT != unix.S_IFBLK || shown != number {
		return fmt.Errorf("%w: %s does not show device %s", ErrWrongMount, path, number)
	}
	return nil
}

// makeDir makes a mount point. A symbolic link is none: the mount would lie
// where it leads, and would not be found again by its path.
func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%w: %s is a symbolic link", ErrUnsupported, path)
	}
	return err
}

func makeFile(path string) error {
	if err := os.MkdirAll(parent(path), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o660)
	if err != nil {
		return err
	}
	return f.Close()
}

func parent(path string) string { return path[:max(1, strings.LastIndexByte(path, '/'))] }

// Unmount takes away every mount at path. It is nil when nothing is there.
func (m *Mounter) Unmount(ctx context.Context, path string) error {
	for range maxLayers {
		entries, err := m.At(path)
		if err != nil || len(entries) == 0 {
			return err
		}
		if _, err := m.run.Run(ctx, "umount", "--", entries[0].Path); err != nil {
			return fmt.Errorf("unmount %s: %w", path, explain(err))
		}
	}
	return fmt.Errorf("%w: %s has more than %d mounts", ErrWrongMount, path, maxLayers)
}

// RemoveTarget unmounts path and removes the empty directory or file that the
// mount was on. It is nil when there is none.
func (m *Mounter) RemoveTarget(ctx context.Context, path string) error {
	if err := m.Unmount(ctx, path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Sync writes back the file system mounted at path and returns what the kernel
// says of it, lost writes of the past included.
func (m *Mounter) Sync(ctx context.Context, path string) error {
	if _, err := m.run.Run(ctx, "sync", "--file-system", "--", path); err != nil {
		return fmt.Errorf("sync %s: %w", path, explain(err))
	}
	return nil
}

// Statfs measures the file system at path.
func (m *Mounter) Statfs(ctx context.Context, path string) (Stats, error) {
	// The buffer belongs to the call: it may come back when nobody waits.
	result := make(chan unix.Statfs_t, 1)
	err := child.Do(ctx, "statfs "+path, func() error {
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		result <- st
		return err
	})
	if err != nil {
		return Stats{}, err
	}
	return statsOf(<-result), nil
}

// Stats are the figures of a file system, in bytes and inodes.
type Stats struct {
	TotalBytes, UsedBytes, AvailableBytes    int64
	TotalInodes, UsedInodes, AvailableInodes int64
}

func statsOf(st unix.Statfs_t) Stats {
	block := int64(st.Bsize) //nolint:unconvert // another type on some architectures
	return Stats{
		TotalBytes: int64(st.Blocks) * block, UsedBytes: int64(st.Blocks-st.Bfree) * block, AvailableBytes: int64(st.Bavail) * block,
		TotalInodes: int64(st.Files), UsedInodes: int64(st.Files - st.Ffree), AvailableInodes: int64(st.Ffree),
	}
}

// Grow makes the file system mounted at path as large as its device; one that
// is so already stays.
func (m *Mounter) Grow(ctx context.Context, device, path, fsType string) error {
	var err error
	switch fsType {
	case "ext4":
		_, err = m.run.Run(ctx, "resize2fs", device)
	case "xfs":
		_, err = m.run.Run(ctx, "xfs_growfs", path)
	default:
		err = CheckFilesystem(or(fsType, "none"))
	}
	if err != nil {
		return fmt.Errorf("grow the file system at %s: %w", path, explain(err))
	}
	return nil
}
