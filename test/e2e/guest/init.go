package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/test/e2e/vdso"
)

// machine is what the kernel's command line says of this guest.
type machine struct {
	dir      string // the lab's directory on the machine outside
	bin      string // the lab's programs
	name     string
	index    int      // gives the addresses: 10.77.0.<10+index> and 10.78.0.<10+index>
	announce string   // where to say that this guest is up
	state    string   // block device for what survives a power cut, or empty
	keep     []string // directories on it besides those that every guest keeps
}

// Inside the guest: the lab's programs, the one writable directory of the
// machine outside, and the state disk.
const (
	binDir   = "/run/lab/bin"
	shareDir = "/run/lab/share"
	stateDir = "/run/lab/state"
)

// kept are the directories that a real machine keeps when its power fails.
// Each is one mount, so that files can be renamed within it.
var kept = []string{"/var/lib/kubelet", "/var/lib/csi-ietd", "/etc/iscsi"}

// initiatorConf is open-iscsi's configuration as its package installs it.
const initiatorConf = "/etc/iscsi/iscsid.conf"

// initMain is PID 1. It brings the guest up by system calls, since starting a
// dynamically linked program costs 60 ms in User Mode Linux, and then reaps
// what dies. It never returns.
func initMain() {
	if err := bringUp(); err != nil {
		fmt.Println("init:", err)
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			_ = unix.Pause()
		}
	}
}

func bringUp() error {
	index, err := strconv.Atoi(os.Getenv("LAB_INDEX"))
	err = errors.Join(err,
		os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
		os.Setenv("HOME", "/root"), os.Setenv("LANG", "C"))
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	m := machine{
		dir: os.Getenv("LAB_RUN"), bin: os.Getenv("LAB_BIN"), name: os.Getenv("LAB_NAME"),
		index: index, announce: os.Getenv("LAB_ANNOUNCE"), state: os.Getenv("LAB_STATE"),
		keep: filepath.SplitList(os.Getenv("LAB_KEEP")),
	}
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"entering the overlay", m.enterOverlay},
		{"the clock", startClock},
		{"mounting the state", m.mountState},
		{"naming the machine", m.nameIt},
		{"network", m.startNetwork},
		{"services", startServices},
		{"agent", m.startAgent},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// startClock gives programs a clock that costs them no system call, if the lab
// could measure what it needs.
func startClock() error {
	ticks := os.Getenv("LAB_TICKS")
	if ticks == "" {
		return nil
	}
	rate, err := strconv.ParseFloat(ticks, 64)
	if err != nil {
		return err
	}
	return vdso.Install(rate)
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

// mountAll mounts in order, making the directories.
func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s on %s: %w", m.source, m.target, err)
		}
	}
	return nil
}

// enterOverlay makes an overlay over the machine's own tree the root: the tree
// comes through hostfs, read-only, and every write goes to memory, so that a
// guest cannot change the machine.
func (m *machine) enterOverlay() error {
	const root = "/mnt/root"
	modules, err := loadOverlay()
	if err != nil {
		return err
	}
	err = mountAll([]mount{
		{"overlay", root, "overlay", 0, "lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work"},
		{"proc", root + "/proc", "proc", 0, ""},
		{"sys", root + "/sys", "sysfs", 0, ""},
		{"dev", root + "/dev", "devtmpfs", 0, ""},
		{"devpts", root + "/dev/pts", "devpts", 0, "ptmxmode=666"},
		{"shm", root + "/dev/shm", "tmpfs", 0, ""},
		{"run", root + "/run", "tmpfs", 0, "mode=755"},
		{"tmp", root + "/tmp", "tmpfs", 0, "mode=1777"},
		{m.bin, root + binDir, "", unix.MS_BIND, ""},
		{"share", root + shareDir, "hostfs", 0, filepath.Join(m.dir, m.name)},
	})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(root+"/lib/modules", 0o755); err != nil {
		return err
	}
	if err := os.Symlink(modules, filepath.Join(root, "lib/modules", filepath.Base(modules))); err != nil {
		return err
	}
	return pivot(root)
}

// loadOverlay loads the overlay module and returns the modules' directory.
func loadOverlay() (string, error) {
	err := mountAll([]mount{{"proc", "/proc", "proc", 0, ""}, {"tmp", "/mnt", "tmpfs", 0, "mode=755"}})
	if err != nil {
		return "", err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	modules := filepath.Join("/usr/lib/uml/modules", strings.TrimSpace(string(release)))
	// modprobe -d DIR wants DIR/lib/modules/<release>.
	for _, dir := range []string{"/mnt/up", "/mnt/work", "/mnt/kmod/lib/modules"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	}
	if err := os.Symlink(modules, filepath.Join("/mnt/kmod/lib/modules", filepath.Base(modules))); err != nil {
		return "", err
	}
	return modules, execute("", "modprobe", "-d", "/mnt/kmod", "overlay")
}

func pivot(root string) error {
	old := root + "/mnt"
	if err := os.MkdirAll(old, 0o755); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/mnt", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root: %w", err)
	}
	// As systemd does: mounts of a container reach its siblings.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// mountState mounts the state disk, or memory in its place, and puts the kept
// directories on it, empty at first.
func (m *machine) mountState() error {
	state := mount{"state", stateDir, "tmpfs", 0, "mode=755"}
	if m.state != "" {
		state = mount{m.state, stateDir, "ext4", 0, "discard"}
	}
	if err := mountAll([]mount{state}); err != nil {
		return err
	}
	conf, err := os.ReadFile(initiatorConf)
	if err != nil {
		return err
	}
	for _, dir := range append(kept, m.keep...) {
		if err := os.MkdirAll(stateDir+dir, 0o755); err != nil {
			return err
		}
		if err := mountAll([]mount{{stateDir + dir, dir, "", unix.MS_BIND, ""}}); err != nil {
			return err
		}
	}
	if err := os.WriteFile(initiatorConf, conf, 0o600); err != nil {
		return err
	}
	// Nothing is to be seen through a second path: mounts under the kept
	// directories would appear there too.
	return unix.Unmount(stateDir, unix.MNT_DETACH)
}

func (m *machine) nameIt() error {
	return errors.Join(
		unix.Sethostname([]byte(m.name)),
		os.WriteFile("/etc/machine-id", fmt.Appendf(nil, "%032x\n", 0xc51e7d00+m.index), 0o444),
		// The same on every guest on purpose, as on cloned machines.
		os.WriteFile("/etc/iscsi/initiatorname.iscsi", []byte("InitiatorName=iqn.1993-08.org.debian:01:cloned\n"), 0o600),
	)
}

// startNetwork sets up vec0, the storage network, and vec1, the control network.
func (m *machine) startNetwork() error {
	batch := fmt.Sprintf(`link set lo up
addr add 10.77.0.%[1]d/24 dev vec0
addr add 10.78.0.%[1]d/24 dev vec1
link set vec0 up
link set vec1 up
`, 10+m.index)
	return execute(batch, "ip", "-batch", "-")
}

func startServices() error {
	if err := execute("", "modprobe", "-a", "sd_mod", "iscsi_tcp", "sg"); err != nil {
		return err
	}
	err := mountAll([]mount{{"cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""}})
	if err != nil {
		return err
	}
	if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory +pids"), 0); err != nil {
		return err
	}
	if err := execute("", "/lib/systemd/systemd-udevd", "--daemon"); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/lock/iscsi", 0o755); err != nil {
		return err
	}
	return launch("iscsid", "iscsid", "-f")
}

func (m *machine) startAgent() error {
	return launch("agent", binDir+"/guest", "-listen", fmt.Sprintf("10.78.0.%d:7000", 10+m.index),
		"-announce", m.announce, "-cgroups", "/sys/fs/cgroup")
}

// execute runs a program to its end.
func execute(stdin string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// launch starts a program whose output goes to <name>.log in the share.
func launch(name string, args ...string) error {
	log, err := os.OpenFile(filepath.Join(shareDir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true} // iscsid signals its group when it ends
	cmd.Stdout, cmd.Stderr = io.Writer(log), io.Writer(log)
	return cmd.Start()
}
