package ietadm

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerGroups are a peer's supplementary groups (SO_PEERGROUPS); a kernel before 4.13
// does not tell them.
func peerGroups(fd int) ([]int, error) {
	gids := make([]uint32, 64)
	for {
		size := uint32(len(gids) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&gids[0])), uintptr(unsafe.Pointer(&size)), 0) //nolint:gosec // the kernel's interface
		switch {
		case errno == 0:
			groups := make([]int, size/4)
			for i := range groups {
				groups[i] = int(gids[i])
			}
			return groups, nil
		case errors.Is(errno, unix.ENOPROTOOPT):
			return nil, nil
		case errno != unix.ERANGE:
			return nil, errno
		}
		gids = make([]uint32, size/4)
	}
}
