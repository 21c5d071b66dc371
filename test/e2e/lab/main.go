package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// rootEnv carries the run's directory to the program's second life inside the
// namespaces; its presence is what tells the two lives apart.
const rootEnv = "CSI_IETD_LAB_ROOT"

// needed are the programs that the lab runs on the machine or, since the
// guests' root is the machine's own tree, in the guests.
var needed = []string{
	"linux.uml", "ip", "mkfs.ext4", "mkfs.xfs", "blkid", "resize2fs", "xfs_growfs", "fsck.ext4", "xfs_repair",
	"iscsid", "iscsiadm", "modprobe", "udevadm", "fio", "tgtd", "tgtadm", "sg_inq", "nsenter", "mount",
	"ss", "fallocate", "fstrim", "blkdiscard",
}

// Main runs f in namespaces of its own and returns the process's exit status.
// It builds what the guests run, and says on stderr where the logs are when f
// failed. Only root can make the namespaces.
func Main(f func() int) int {
	if os.Getenv(rootEnv) != "" {
		return inner(f)
	}
	status, err := outer()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	return status
}

// checkMachine says what is missing before anything is made.
func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("must run as root: it makes namespaces, taps and bridges of its own")
	}
	var missing []string
	for _, name := range needed {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		return fmt.Errorf("not found in PATH: %s (hack/install-deps installs them on Debian)", strings.Join(missing, ", "))
	}
	return nil
}

func outer() (int, error) {
	if err := checkMachine(); err != nil {
		return 0, err
	}
	run, err := openRun()
	if err != nil {
		return 0, err
	}
	status := 1
	defer func() { run.close(status == 0) }()
	if err := buildBinaries(run.bin()); err != nil {
		return 0, err
	}
	status, err = reexec(run.dir)
	return status, err
}

// reexec runs this program again, as the first process of a new process
// namespace: when this one dies, so does everything in there.
func reexec(root string) (int, error) {
	// The parent-death signal is tied to the thread that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), rootEnv+"="+root)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	// A terminal sends its signals to the whole group; what is sent to this
	// process alone (by go test, by a CI system) is passed on, so that the
	// inner life can print its stacks and the logs' place is still named.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("making namespaces: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(passOn(s))
		case err := <-done:
			return exitStatus(cmd, err)
		}
	}
}

// passOn maps a polite request to end onto SIGKILL: the first process of a
// namespace ignores signals that it does not handle.
func passOn(s os.Signal) os.Signal {
	if s == syscall.SIGQUIT {
		return s
	}
	return syscall.SIGKILL
}

func exitStatus(cmd *exec.Cmd, err error) (int, error) {
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return 0, err
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 1, nil
}

// inner prepares the namespaces and runs f in them.
func inner(f func() int) int {
	if err := enterNamespaces(); err != nil {
		fmt.Fprintln(os.Stderr, "lab: entering the namespaces:", err)
		return 1
	}
	return f()
}

func enterNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	// Sockets and pid files of what the lab starts outside stay off the machine.
	if err := unix.Mount("run", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	return ip("link set lo up")
}
