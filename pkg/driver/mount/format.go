package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

// Filesystem returns the type of the file system on a device, "" where the
// device is proven to hold nothing at all. What is there but is no file system
// that volumes can have is ErrNotEmpty; a probe that fails is an error.
func (m *Mounter) Filesystem(ctx context.Context, device string) (string, error) {
	out, err := m.run.Run(ctx, "blkid", "--probe", "--output", "export", device)
	code, exited := child.ExitCode(err)
	switch {
	case err == nil:
		return filesystemIn(device, out)
	case exited && code == 2:
		// blkid says the same for a device that it cannot read.
		return "", m.proveEmpty(ctx, device)
	case exited && code == 8:
		return "", fmt.Errorf("%w: blkid finds several signatures on %s", ErrNotEmpty, device)
	}
	return "", fmt.Errorf("probe %s: %w", device, explain(err))
}

// filesystemIn reads blkid's KEY=value lines.
func filesystemIn(device, out string) (string, error) {
	found := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		found[key] = value
	}
	fsType := found["TYPE"]
	if _, ok := filesystems[fsType]; ok {
		return fsType, nil
	}
	if fsType == "" {
		fsType = or(found["PTTYPE"], "something unknown")
	}
	return "", fmt.Errorf("%w: %s holds %s", ErrNotEmpty, device, fsType)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// edge is how much of a device's beginning and end must be zero.
const edge = 1 << 20

// proveEmpty returns nil when the first and the last MiB were read from the
// device itself and are zero.
func (m *Mounter) proveEmpty(ctx context.Context, device string) error {
	return child.Do(ctx, "read "+device, func() error {
		f, err := openDirect(device)
		if err != nil {
			return err
		}
		defer f.Close()
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return fmt.Errorf("size of %s: %w", device, err)
		}
		if size <= 0 {
			return fmt.Errorf("%w: %s has no size", ErrNotEmpty, device)
		}
		for _, offset := range []int64{0, max(0, size-edge)} {
			if err := proveZero(f, offset, min(edge, size-offset)); err != nil {
				return err
			}
		}
		return nil
	})
}

func proveZero(f *os.File, offset, n int64) error {
	buf := alignedBuffer(int(n))
	if _, err := f.ReadAt(buf, offset); err != nil {
		return fmt.Errorf("read %s at %d: %w", f.Name(), offset, err)
	}
	if !zero(buf) {
		return fmt.Errorf("%w: %s has data near offset %d and no file system that blkid knows", ErrNotEmpty, f.Name(), offset)
	}
	return nil
}

// openDirect opens a device past the page cache, which may hold another disk's
// pages under that name; where that is impossible, through it.
func openDirect(device string) (*os.File, error) {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return os.Open(device)
	}
	return f, err
}

// alignedBuffer returns n bytes at an address that O_DIRECT takes.
func alignedBuffer(n int) []byte {
	const alignment = 4096
	buf := make([]byte, n+alignment)
	skip := alignment - int(uintptr(unsafe.Pointer(&buf[0]))%alignment)
	return buf[skip : skip+n]
}

// ReadProbe reads the first block of a device, from the device itself: an
// error means that it does not serve I/O.
func (m *Mounter) ReadProbe(ctx context.Context, device string) error {
	return child.Do(ctx, "read "+device, func() error {
		f, err := openDirect(device)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.ReadAt(alignedBuffer(4096), 0)
		return err
	})
}

// Unused returns nil when nobody holds the device: no file system, no map, in
// whatever mount namespace. A device that is dead is unused too.
func (m *Mounter) Unused(ctx context.Context, device string) error {
	return child.Do(ctx, "open "+device, func() error {
		f, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL, 0)
		switch {
		case err == nil:
			return f.Close()
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("%s is held by somebody, maybe mounted in another mount namespace: %w", device, err)
		}
		return nil // not there, or no longer serving
	})
}

// Wipe zeroes what Filesystem looks at, of a device whose content is ours to
// overwrite and that nobody holds.
func (m *Mounter) Wipe(ctx context.Context, device string) error {
	return child.Do(ctx, "wipe "+device, func() error {
		f, err := os.OpenFile(device, os.O_WRONLY|unix.O_EXCL, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		for _, offset := range []int64{0, max(0, size-edge)} {
			if _, err := f.WriteAt(make([]byte, min(edge, size-offset)), offset); err != nil {
				return err
			}
		}
		return f.Sync()
	})
}

// Format makes a file system on a device that Filesystem just said is empty.
// mkfs looks again by itself and is not told to overwrite anything. The options
// are from ParseMkfsOptions.
func (m *Mounter) Format(ctx context.Context, device, fsType string, options []string) error {
	mkfs := filesystems[fsType].mkfs
	if mkfs == nil {
		return CheckFilesystem(fsType)
	}
	_, err := m.run.Run(ctx, mkfs[0], slices.Concat(mkfs[1:], options, []string{device})...)
	if err != nil {
		return fmt.Errorf("format %s: %w", device, explain(err))
	}
	_, err = m.Inspect(ctx, device, fsType)
	return err
}

// Check repairs, before it is mounted, what fsck repairs without being asked.
// A file system whose kernel does that itself is left alone.
func (m *Mounter) Check(ctx context.Context, device, fsType string) error {
	fsck := filesystems[fsType].fsck
	if fsck == nil {
		return nil
	}
	_, err := m.run.Run(ctx, fsck[0], slices.Concat(fsck[1:], []string{device})...)
	code, exited := child.ExitCode(err)
	switch {
	case err == nil:
		return nil
	case exited && code&^3 == 0: // a bit each: repaired, and were it mounted, reboot
		m.log.Warn("fsck repaired a file system", "device", device, "type", fsType)
		return nil
	case exited && code == 4:
		return fmt.Errorf("%w: attach the volume as a raw block device and run %s on it by hand: %w", ErrDamaged, fsck[0], err)
	}
	return fmt.Errorf("check %s: %w", device, explain(err))
}
