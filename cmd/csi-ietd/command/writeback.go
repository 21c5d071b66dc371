package command

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// oomScoreAdj makes the kernel look for memory everywhere else first; -1000
// would forbid it, also where this process itself is the leak.
const oomScoreAdj = "-999"

// guardWriteback prepares the process for being on the path on which the
// kernel writes dirty pages back, as it is when initiator and target share a
// machine. Memory that the kernel allocates for us must not wait for our own
// writes (PR_SET_IO_FLUSHER), and running out of memory must not kill us first.
// Both need CAP_SYS_RESOURCE; without it a warning says what that costs.
func guardWriteback(log klog.Logger) {
	if err := setIOFlusher(); err != nil {
		log.Info("PR_SET_IO_FLUSHER refused: under memory pressure an initiator on this same machine can deadlock; run as root or with CAP_SYS_RESOURCE",
			"reason", err.Error())
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(oomScoreAdj), 0); err != nil {
		log.Info("The OOM score stays as it is: when memory runs out this process may be killed first", "reason", err.Error())
	}
}

// setIOFlusher sets PR_SET_IO_FLUSHER. The flag belongs to a thread and is
// inherited by the threads that it makes, and the runtime makes threads from
// any of those it has: so it is set on all of them at once. A program built
// with cgo cannot do that; there it is set on this thread.
func setIOFlusher() error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
	if errors.Is(errno, syscall.ENOTSUP) {
		return unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0)
	}
	if errno != 0 {
		return errno
	}
	return nil
}
