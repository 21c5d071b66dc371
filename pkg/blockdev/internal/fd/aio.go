package fd

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iocb is struct iocb of linux/aio_abi.h.
type iocb struct {
	data    uint64
	_       uint32 // the order of these two is a little-endian machine's
	rwFlags uint32
	opcode  uint16
	_       int16
	fd      uint32
	buf, n  uint64
	offset  int64
	_       uint64
	_       [2]uint32
}

// ioEvent is struct io_event: the data of an iocb, and how many bytes were moved, or an
// errno below 0.
type ioEvent struct {
	data, iocb       uint64
	result, reserved int64
}

const iocbPread = 0 // IOCB_CMD_PREAD

// ioSetup is io_setup(2).
func ioSetup(n int) (context uint64, err error) {
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(n), uintptr(unsafe.Pointer(&context)), 0); errno != 0 { //nolint:gosec // the kernel's interface
		return 0, errno
	}
	return context, nil
}

// ioDestroy is io_destroy(2).
func ioDestroy(context uint64) {
	_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, uintptr(context), 0, 0) // of one that is there
}

// ioSubmit is io_submit(2) of one; of nil it asks whether that may be called.
func ioSubmit(context uint64, r *iocb) error {
	n := 1
	if r == nil {
		n = 0
	}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, uintptr(context), uintptr(n), uintptr(unsafe.Pointer(&r))); errno != 0 { //nolint:gosec // the kernel's interface
		return errno
	}
	return nil
}

// ioGetEvents is io_getevents(2): it waits for least events, and not longer than patience.
func ioGetEvents(context uint64, least int, patience time.Duration, events []ioEvent) (int, error) {
	limit := unix.NsecToTimespec(int64(patience))
	n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, uintptr(context), uintptr(least), uintptr(len(events)), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(unsafe.Pointer(&limit)), 0) //nolint:gosec // the kernel's interface
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
