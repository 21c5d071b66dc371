package initiator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

// host is the place that open-iscsi lives in: iscsid's namespaces.
type host struct {
	run child.Runner
	// root goes before a path of iscsid's mount namespace; empty where that
	// is ours.
	root string
	// enter is the nsenter command that leads there, or nothing.
	enter []string
	// ourNet: iscsid connects from our own network namespace.
	ourNet bool
}

func (h host) path(p string) string { return filepath.Join("/", h.root, p) }

func (h host) exec(ctx context.Context, name string, args ...string) (string, error) {
	if len(h.enter) == 0 {
		return h.run.Run(ctx, name, args...)
	}
	return h.run.Run(ctx, h.enter[0], slices.Concat(h.enter[1:], []string{name}, args)...)
}

// iscsiadmTimeout bounds one call of iscsiadm. It waits up to 30 s for a lock
// that a dead process holds.
const iscsiadmTimeout = 45 * time.Second

func (h host) iscsiadm(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, iscsiadmTimeout)
	defer cancel()
	_, err := h.exec(ctx, "iscsiadm", args...)
	if errors.Is(err, child.ErrNoProgram) {
		return fmt.Errorf("%w: iscsiadm is missing: install open-iscsi", ErrHost)
	}
	return err
}

// host finds iscsid and asks systemd to start it where it is not running:
// distributions start it on demand.
func (i *Initiator) host(ctx context.Context) (host, error) {
	pid, err := i.pidOf("iscsid")
	if errors.Is(err, fs.ErrNotExist) && i.startISCSID(ctx) {
		err = poll(ctx, func() (bool, error) {
			pid, err = i.pidOf("iscsid")
			return err == nil, nil
		})
	}
	if err != nil {
		return host{}, fmt.Errorf("%w: iscsid is not running: install open-iscsi and start it (systemctl enable --now iscsid)", ErrHost)
	}
	return i.hostOf(pid)
}

// hostOf is the host as the process pid sees it.
func (i *Initiator) hostOf(pid int) (host, error) {
	h := host{run: i.run, ourNet: true}
	dir := filepath.Join(i.cfg.Proc, strconv.Itoa(pid))
	sameMount, err := i.sameNamespace(dir, "mnt")
	if err != nil {
		return h, fmt.Errorf("%w: cannot read iscsid's namespaces: run with hostPID and privileges: %w", ErrHost, err)
	}
	if h.ourNet, err = i.sameNamespace(dir, "net"); err != nil {
		return h, fmt.Errorf("%w: cannot read iscsid's namespaces: %w", ErrHost, err)
	}
	if sameMount && h.ourNet {
		return h, nil
	}
	h.enter = []string{"nsenter"}
	if !sameMount {
		h.root = filepath.Join(dir, "root")
		h.enter = append(h.enter, "--mount="+filepath.Join(dir, "ns/mnt"))
	}
	if !h.ourNet {
		h.enter = append(h.enter, "--net="+filepath.Join(dir, "ns/net"))
	}
	h.enter = append(h.enter, "--")
	return h, nil
}

func (i *Initiator) sameNamespace(procDir, kind string) (bool, error) {
	theirs, err := os.Readlink(filepath.Join(procDir, "ns", kind))
	if err != nil {
		return false, err
	}
	ours, err := os.Readlink(filepath.Join(i.cfg.Proc, "self/ns", kind))
	return theirs == ours, err
}

// pidOf returns the lowest pid of the processes of that name.
func (i *Initiator) pidOf(comm string) (int, error) {
	pids, err := i.pidsOf(comm)
	if err != nil {
		return 0, err
	}
	if len(pids) == 0 {
		return 0, fmt.Errorf("%s: %w", comm, fs.ErrNotExist)
	}
	return slices.Min(pids), nil
}

func (i *Initiator) pidsOf(comm string) ([]int, error) {
	entries, err := os.ReadDir(i.cfg.Proc)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, err := os.ReadFile(filepath.Join(i.cfg.Proc, e.Name(), "comm"))
		if err == nil && strings.TrimSpace(string(name)) == comm {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// startISCSID asks the host's systemd, if that is what process 1 is.
func (i *Initiator) startISCSID(ctx context.Context) bool {
	name, err := os.ReadFile(filepath.Join(i.cfg.Proc, "1/comm"))
	if err != nil || strings.TrimSpace(string(name)) != "systemd" {
		return false
	}
	h, err := i.hostOf(1)
	if err != nil {
		return false
	}
	_, err = h.exec(ctx, "systemctl", "start", "iscsid.service")
	return err == nil
}

// Preflight returns nil when volumes can be attached, else ErrHost with what
// is missing. It starts iscsid and loads iscsi_tcp where it can.
func (i *Initiator) Preflight(ctx context.Context) error {
	h, err := i.host(ctx)
	if err != nil {
		return err
	}
	if err := i.loadTransport(ctx, h); err != nil {
		return err
	}
	if _, err := h.exec(ctx, "iscsiadm", "--version"); err != nil {
		return fmt.Errorf("%w: iscsiadm does not run: install open-iscsi: %w", ErrHost, err)
	}
	return nil
}

func (i *Initiator) loadTransport(ctx context.Context, h host) error {
	transport := filepath.Join(i.cfg.Sysfs, "class/iscsi_transport/tcp")
	if _, err := os.Stat(transport); err == nil {
		return nil
	}
	_, err := h.exec(ctx, "modprobe", "iscsi_tcp")
	if _, statErr := os.Stat(transport); statErr != nil {
		return fmt.Errorf("%w: kernel module iscsi_tcp is missing: modprobe iscsi_tcp, and install the package that has it (linux-modules-extra on Ubuntu): %w",
			ErrHost, errors.Join(err, statErr))
	}
	return nil
}
