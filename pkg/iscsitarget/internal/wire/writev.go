package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// writev is writev(2): package unix's makes its own vector, each time.
func writev(fd int, iov []unix.Iovec) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov))) //nolint:gosec // the kernel's interface
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
