// Package raw opens one existing regular file or block device as a
// [blockdev.Device]. There is no pool, no record and no growth: what lies at
// the path belongs to whoever put it there.
//
// A regular file offers to unmap where its file system punches holes. A block
// device does not offer it yet.
package raw

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"golang.org/x/sys/unix"
)

// Options say how a path is opened; the zero value is usable.
type Options struct {
	// ReadOnly opens without the right to write: writes fail with EROFS.
	ReadOnly bool
	// BlockSize is the logical block length in bytes, 512 to 4096. 0 is
	// the block device's own; for a file 512, or what Direct needs.
	BlockSize int
	// StateFile is where the device, as a [blockdev.StateKeeper], keeps the
	// state of the logical unit above it: a file of a directory that exists.
	// A journal beside it, StateFile + ".journal", makes the device a
	// [blockdev.AtomicWriter], and Open completes the write that it holds.
	// Empty: the device is neither of the two.
	StateFile string
	// Root is a directory that the path must lie below, whatever its links and
	// dots say; empty allows any.
	Root string
	// Direct reads and writes past the page cache, for which a file system may
	// need longer blocks.
	Direct bool

	calls fd.Calls // a test's
}

// Open opens path. What is absent is [fs.ErrNotExist]; a directory, a pipe or
// a file without one whole block is ErrInvalid. Open for writing takes the
// path for itself: one that another opener has, or that is mounted, is
// ErrBusy, since two writers would destroy each other's data; a block device
// that is read-only is EROFS. The part of a file behind its last whole block is
// left alone.
func Open(path string, o Options) (blockdev.Device, error) {
	if o.Root == "" {
		return open(path, path, o)
	}
	place, err := beneath(o.Root, path)
	if err != nil {
		return nil, err
	}
	defer place.Close() // of no further use
	// What was found below the root is what is opened, whoever moves links.
	d, err := open(fmt.Sprintf("/proc/self/fd/%d", place.Fd()), path, o)
	var at *fs.PathError
	if errors.As(err, &at) {
		at.Path = path
	}
	return d, err
}

// beneath finds a path that does not leave the root.
func beneath(root, path string) (*os.File, error) {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close() // it was looked into
	below, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsLocal(below) {
		return nil, fmt.Errorf("%s is not below %s: %w", path, root, blockdev.ErrInvalid)
	}
	place, err := unix.Openat2(int(dir.Fd()), below, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%s leaves %s by a link: %w", path, root, blockdev.ErrInvalid)
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(place), path), nil
}

// open opens what is at place under the name of path.
func open(place, path string, o Options) (blockdev.Device, error) {
	st, err := os.Stat(place)
	if err != nil {
		return nil, err
	}
	kind := st.Mode().Type()
	isDisk := kind == fs.ModeDevice
	if kind != 0 && !isDisk {
		return nil, fmt.Errorf("%s is no regular file or block device but %v: %w", path, kind, blockdev.ErrInvalid)
	}
	f, err := openFile(place, o, isDisk)
	if err != nil {
		return nil, err
	}
	d, err := newDevice(f, path, o, isDisk)
	if err != nil {
		_ = f.Close() // already closed, where the device was
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// openFile opens path and takes it for itself.
func openFile(path string, o Options, isDisk bool) (*os.File, error) {
	flag := os.O_RDWR
	if o.ReadOnly {
		flag = os.O_RDONLY
	} else if isDisk {
		flag |= os.O_EXCL // refused while it is mounted or claimed
	}
	if o.Direct {
		flag |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flag, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s: mounted or claimed by another: %w", path, blockdev.ErrBusy)
	case o.Direct && errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("%w: its file system has no direct I/O", err)
	case err != nil:
		return nil, err
	}
	if isDisk { // no lock: udev takes them on disks, for itself
		if !o.ReadOnly {
			err = writable(f)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
	lock := unix.LOCK_EX
	if o.ReadOnly {
		lock = unix.LOCK_SH
	}
	err = unix.Flock(int(f.Fd()), lock|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("locked by another opener: %w", blockdev.ErrBusy)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

// writable says EROFS of a disk that is read-only: Linux lets a loop device and others be
// opened for writing all the same, and fails each write.
func writable(f *os.File) error {
	readOnly, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	if err == nil && readOnly != 0 {
		err = unix.EROFS
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: f.Name(), Err: err}
	}
	return nil
}

func newDevice(f *os.File, path string, o Options, isDisk bool) (blockdev.Device, error) {
	alignment := int64(1) // of fallocate
	direct, smallest := 0, 1
	var err error
	switch {
	case isDisk:
		if smallest, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil {
			return nil, fmt.Errorf("logical block size: %w", err)
		}
		alignment = int64(smallest)
	case o.Direct:
		if smallest, err = directAlignment(f); err != nil {
			return nil, err
		}
	}
	if o.Direct {
		direct = smallest
	}
	blockSize, err := chooseBlockSize(o.BlockSize, smallest)
	if err != nil {
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd) // of a block device too, unlike Stat
	if err != nil {
		return nil, err
	}
	size := end - end%int64(blockSize)
	if size == 0 {
		return nil, fmt.Errorf("%d bytes are not one block of %d: %w", end, blockSize, blockdev.ErrInvalid)
	}
	options := fd.Options{Name: path, Size: size, BlockSize: blockSize, Alignment: alignment, Direct: direct, Calls: o.calls}
	if o.ReadOnly {
		return kept(readOnly{fd.New(f, options)}, path, o.StateFile)
	}
	if !isDisk {
		options.Granularity = granularity(f, end)
	}
	d := fd.New(f, options)
	if options.Granularity > 0 {
		return kept(thin{d}, path, o.StateFile)
	}
	return kept(d, path, o.StateFile)
}

// directAlignment is the unit of offsets, lengths and addresses in bytes that a file
// which is open with O_DIRECT takes. Older kernels have nobody to ask but a read.
func directAlignment(f *os.File) (int, error) {
	const page = 4096
	memory, err := unix.Mmap(-1, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("memory for direct I/O: %w", err)
	}
	defer func() { _ = unix.Munmap(memory) }()
	for n := 512; n <= page; n *= 2 {
		_, err = unix.Pread(int(f.Fd()), memory[:n], 0)
		if !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return 0, fmt.Errorf("direct I/O in units of %d bytes: %w", page, err)
}

// chooseBlockSize returns what was asked for where the medium has no larger
// blocks itself.
func chooseBlockSize(asked, medium int) (int, error) {
	chosen := asked
	if asked == 0 {
		chosen = max(medium, 512)
	}
	if err := blockdev.CheckBlockSize(chosen); err != nil {
		return 0, err
	}
	if chosen < medium {
		return 0, fmt.Errorf("block size %d is smaller than that of the medium, %d: %w", chosen, medium, blockdev.ErrInvalid)
	}
	return chosen, nil
}

// granularity returns the unit of hole punching in bytes, 0 where there is
// none. It asks behind the end of the file, where a hole changes nothing.
func granularity(f *os.File, end int64) int64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || st.Blksize < 512 || st.Blksize&(st.Blksize-1) != 0 {
		return 0
	}
	unit := int64(st.Blksize) //nolint:unconvert // 32 bits on arm64
	behind := end + unit - 1
	behind -= behind % unit
	if unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, behind, unit) != nil {
		return 0
	}
	return unit
}

// thin is a regular file on a file system that punches holes.
type thin struct{ *fd.Device }

var (
	_ blockdev.Unmapper = thin{}
	_ blockdev.Mapper   = thin{}
	_ blockdev.Spacer   = thin{}
)

// Unmap punches a hole.
func (d thin) Unmap(off, n int64) error { return d.Punch(off, n) }

// UnmapGranularity is the file system's block in bytes.
func (d thin) UnmapGranularity() int64 { return d.PunchGranularity() }

// Space is the file's and its file system's.
func (d thin) Space() (blockdev.Space, error) { return d.Usage() }

// Mapped knows the file's holes.
func (d thin) Mapped(off int64) (bool, int64, error) { return d.Extent(off) }

// readOnly is a medium opened without the right to write.
type readOnly struct{ medium *fd.Device }

var _ blockdev.NowaitReader = readOnly{}

// ReadAt fills p.
func (d readOnly) ReadAt(p []byte, off int64) (int, error) { return d.medium.ReadAt(p, off) }

// ReadAtNowait reads what is in memory.
func (d readOnly) ReadAtNowait(p []byte, off int64) (int, error) {
	return d.medium.ReadAtNowait(p, off)
}

// WriteAt fails with EROFS.
func (d readOnly) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("opened read-only: %w", unix.EROFS)
}

// Sync has nothing to do.
func (d readOnly) Sync() error { return nil }

// Size is in bytes.
func (d readOnly) Size() int64 { return d.medium.Size() }

// BlockSize is the logical block length in bytes.
func (d readOnly) BlockSize() int { return d.medium.BlockSize() }

// Close closes the medium.
func (d readOnly) Close() error { return d.medium.Close() }
