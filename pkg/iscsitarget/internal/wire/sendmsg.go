package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendmsg is sendmsg(2) of iov, which does not wait: package unix's makes a vector of its
// own, each time.
func (c *Conn) sendmsg() (int, error) {
	c.msg.Iov = &c.iov[0]
	c.msg.SetIovlen(len(c.iov))
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) //nolint:gosec // the kernel's interface
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
