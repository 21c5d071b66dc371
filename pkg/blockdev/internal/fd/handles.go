package fd

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// maxHandles bounds the stable writes of one device that run at once.
const maxHandles = 8

// handles are further open file descriptions of one file, each used by one
// stable write at a time. The kernel reports a failed write-back once per
// description (errseq_t): on a shared one, a write could be told of another's
// loss and that other one of none.
type handles struct {
	path string
	flag int      // beside those of any
	free chan int // descriptors; -1 stands for one not yet opened
}

func newHandles(fd, flag int) *handles {
	h := &handles{path: fmt.Sprintf("/proc/self/fd/%d", fd), flag: flag, free: make(chan int, maxHandles)}
	for range maxHandles {
		h.free <- -1
	}
	return h
}

// take waits for a handle. It fails where the file cannot be opened again,
// for example after the process gave up its privileges.
func (h *handles) take() (int, error) {
	fd := <-h.free
	if fd >= 0 {
		return fd, nil
	}
	fd, err := unix.Open(h.path, unix.O_RDWR|unix.O_CLOEXEC|h.flag, 0)
	if err != nil {
		h.free <- -1
		return -1, err
	}
	return fd, nil
}

func (h *handles) put(fd int) { h.free <- fd }

// close closes the handles; the caller has seen to it that none is taken.
func (h *handles) close() {
	for range maxHandles {
		if fd := <-h.free; fd >= 0 {
			_ = unix.Close(fd) // nothing is dirty here: every write was stable or reported
		}
	}
}
