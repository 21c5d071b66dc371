package fd

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Calls are the system calls that a test may want to fail.
type Calls struct {
	Pread     func(fd int, p []byte, off int64) (int, error)
	Pwrite    func(fd int, p []byte, off int64) (int, error)
	Fdatasync func(fd int) error
	Fallocate func(fd int, mode uint32, off, n int64) error
	// ReadNowait is preadv2 with RWF_NOWAIT.
	ReadNowait func(fd int, p []byte, off int64) (int, error)
	// WriteStable is pwritev2 with RWF_DSYNC.
	WriteStable func(fd int, p []byte, off int64) (int, error)
	// ReadAhead is posix_fadvise with POSIX_FADV_WILLNEED.
	ReadAhead func(fd int, off, n int64) error
	// DropCache is posix_fadvise with POSIX_FADV_DONTNEED for all of it.
	DropCache func(fd int) error
	// Seek is lseek, for holes and data.
	Seek func(fd int, off int64, whence int) (int64, error)
	// CopyRange is copy_file_range.
	CopyRange func(src int, srcOff int64, dst int, dstOff int64, n int) (int, error)
}

func (c Calls) orKernel() Calls {
	if c.Pread == nil {
		c.Pread = unix.Pread
	}
	if c.Pwrite == nil {
		c.Pwrite = unix.Pwrite
	}
	if c.Fdatasync == nil {
		c.Fdatasync = unix.Fdatasync
	}
	if c.Fallocate == nil {
		c.Fallocate = unix.Fallocate
	}
	if c.ReadNowait == nil {
		c.ReadNowait = readNowait
	}
	if c.WriteStable == nil {
		c.WriteStable = writeStable
	}
	if c.ReadAhead == nil {
		c.ReadAhead = readAhead
	}
	if c.DropCache == nil {
		c.DropCache = dropCache
	}
	if c.Seek == nil {
		c.Seek = unix.Seek
	}
	if c.CopyRange == nil {
		c.CopyRange = copyRange
	}
	return c
}

func readNowait(fd int, p []byte, off int64) (int, error) {
	return unix.Preadv2(fd, [][]byte{p}, off, unix.RWF_NOWAIT)
}

func writeStable(fd int, p []byte, off int64) (int, error) {
	return unix.Pwritev2(fd, [][]byte{p}, off, unix.RWF_DSYNC)
}

func readAhead(fd int, off, n int64) error {
	return unix.Fadvise(fd, off, n, unix.FADV_WILLNEED)
}

// nowaitFetches: where preadv2 with RWF_NOWAIT finds something missing the kernel begins
// to read it, since Linux 5.9.
var nowaitFetches = sync.OnceValue(func() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	return fetchesSince(unix.ByteSliceToString(name.Release[:]))
})

func fetchesSince(release string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return n == 2 && (major > 5 || major == 5 && minor >= 9)
}

func dropCache(fd int) error {
	return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
}

func copyRange(src int, srcOff int64, dst int, dstOff int64, n int) (int, error) {
	return unix.CopyFileRange(src, &srcOff, dst, &dstOff, n, 0)
}

// isUnsupported says that the file system or the kernel does not know the
// call, and never will while the file is open.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENODEV)
}
