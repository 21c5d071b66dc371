package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

// GuestConfig says what a guest is made of.
type GuestConfig struct {
	Name   string
	Memory int64 // bytes; 0: 512 MiB

	// State is the size in bytes of a disk for what a real machine keeps when
	// its power fails: /var/lib/kubelet, /var/lib/csi-ietd and open-iscsi's
	// database. 0: they lie in memory and a reboot loses them.
	State int64
	// Base is an ext4 file system that State begins as, with the directories by
	// their paths. It is only read.
	Base string
	// Keep are further directories that lie on State.
	Keep []string

	// Disks are further disks' sizes in bytes: /dev/ubdb, /dev/ubdc, ...
	Disks []int64
}

// Guest is one User Mode Linux machine.
type Guest struct {
	*Machine
	lab   *Lab
	cfg   GuestConfig
	index int
	power *power // of the current boot, nil before the first
}

const (
	mebibyte      = 1 << 20
	defaultMemory = 512 * mebibyte
	agentPort     = 7000
	bootTimeout   = 60 * time.Second
	haltTimeout   = 20 * time.Second
)

// Boot makes a guest, turns it on and returns when its agent answers.
func (l *Lab) Boot(ctx context.Context, cfg GuestConfig) (*Guest, error) {
	g, err := l.newGuest(cfg)
	if err != nil {
		return nil, err
	}
	return g, g.makeAndBoot(ctx)
}

// BootAll boots several guests at once. They get their addresses in the order
// given.
func (l *Lab) BootAll(ctx context.Context, configs ...GuestConfig) ([]*Guest, error) {
	guests := make([]*Guest, len(configs))
	boots, ctx := errgroup.WithContext(ctx)
	for i, cfg := range configs {
		g, err := l.newGuest(cfg)
		if err != nil {
			return nil, errors.Join(err, boots.Wait())
		}
		guests[i] = g
		boots.Go(func() error { return g.makeAndBoot(ctx) })
	}
	return guests, boots.Wait()
}

func (l *Lab) newGuest(cfg GuestConfig) (*Guest, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range l.guests {
		if other.Name == cfg.Name {
			return nil, fmt.Errorf("there is a guest %s already", cfg.Name)
		}
	}
	g := &Guest{lab: l, cfg: cfg, index: len(l.guests) + 1}
	g.Machine = &Machine{Name: cfg.Name, Storage: storageOf(g.index), bin: "/run/lab/bin", logs: "/run/lab/share"}
	l.guests = append(l.guests, g)
	return g, nil
}

func (g *Guest) makeAndBoot(ctx context.Context) error {
	if err := os.MkdirAll(g.dir(), 0o755); err != nil {
		return err
	}
	if err := g.makeDisks(ctx); err != nil {
		return err
	}
	if err := makeTaps(g.index); err != nil {
		return err
	}
	return g.PowerOn(ctx)
}

// dir is the guest's directory outside; the guest writes its logs there.
func (g *Guest) dir() string { return filepath.Join(g.lab.dir, g.cfg.Name) }

func (g *Guest) diskPath(i int) string { return filepath.Join(g.dir(), "disk"+strconv.Itoa(i)+".img") }

func (g *Guest) makeDisks(ctx context.Context) error {
	for i, size := range g.cfg.Disks {
		if err := makeSparse(g.diskPath(i+1), size); err != nil {
			return err
		}
	}
	if g.cfg.State == 0 || g.cfg.Base != "" {
		return nil // User Mode Linux makes the copy-on-write file by itself
	}
	if err := makeSparse(g.diskPath(0), g.cfg.State); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", g.diskPath(0)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4 of %s's state: %w: %s", g.Name, err, out)
	}
	return nil
}

func makeSparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// PowerOn boots a guest that is off, with the disks and the addresses that it
// had before, and returns when its agent answers.
func (g *Guest) PowerOn(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("no answer after %v", bootTimeout))
	defer cancel()
	up := g.lab.expect(controlOf(g.index))
	p, err := g.start()
	if err != nil {
		return err
	}
	g.power = p
	g.Client = &agent.Client{Connect: connectTo(p.life, fmt.Sprintf("%s:%d", controlOf(g.index), agentPort))}
	select {
	case <-up:
		if g.lab.Secrets == nil {
			return nil
		}
		// Coarser than outside: a look costs a guest much more, and so does the
		// start of a program, which takes 60 ms.
		return g.lab.Secrets.watch(ctx, p.life, g.Machine, agent.Watch{
			Files: watched, FileInterval: 200 * time.Millisecond, ProcessInterval: 20 * time.Millisecond,
		})
	case <-p.gone:
		err = errors.New("it went down while booting")
	case <-ctx.Done():
		err = context.Cause(ctx)
		g.Kill()
	}
	return fmt.Errorf("booting %s: %w (its console is %s)", g.Name, err, g.consolePath())
}

func (l *Lab) expect(address string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	up := make(chan struct{})
	l.waiting[address] = up
	return up
}

func (g *Guest) consolePath() string { return filepath.Join(g.dir(), "console.log") }

func (g *Guest) start() (*power, error) {
	console, err := os.OpenFile(g.consolePath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer console.Close()
	cmd := exec.Command("linux.uml", g.kernelArgs()...)
	cmd.Env = g.lab.withPtrace()
	cmd.Stdout, cmd.Stderr = console, console
	return turnOn(cmd)
}

func (g *Guest) kernelArgs() []string {
	memory := g.cfg.Memory
	if memory == 0 {
		memory = defaultMemory
	}
	args := []string{
		"mem=" + strconv.FormatInt(memory/mebibyte, 10) + "M",
		"root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "init=" + filepath.Join(g.lab.root, "bin", Agent),
		"uml_dir=" + filepath.Join(g.dir(), "uml"), "umid=" + g.Name,
		vector(0, storageTap(g.index), 0x77, g.index), vector(1, controlTap(g.index), 0x78, g.index),
		"con=null", "con0=null,fd:1", "quiet", "panic=-1",
		"pty.legacy_count=0", // making 256 of them would cost 0.9 s
		"LAB_RUN=" + g.lab.dir, "LAB_BIN=" + filepath.Join(g.lab.root, "bin"), "LAB_NAME=" + g.Name,
		"LAB_INDEX=" + strconv.Itoa(g.index), "LAB_ANNOUNCE=" + g.lab.bell.Addr().String(),
		"LAB_TICKS=" + g.lab.clock.rate(),
	}
	if g.cfg.State > 0 {
		disk := g.diskPath(0)
		if g.cfg.Base != "" {
			disk += "," + g.cfg.Base
		}
		args = append(args, "ubd0="+disk, "LAB_STATE=/dev/ubda", "LAB_KEEP="+strings.Join(g.cfg.Keep, ":"))
	}
	for i := range g.cfg.Disks {
		args = append(args, fmt.Sprintf("ubd%d=%s", i+1, g.diskPath(i+1)))
	}
	return args
}

func vector(device int, tap string, net, index int) string {
	return fmt.Sprintf("vec%d:transport=tap,ifname=%s,depth=128,gro=1,mac=02:00:0a:%02x:00:%02x", device, tap, net, 10+index)
}

// Kill is the power cut: nothing in the guest gets to run any more. What it
// had not flushed is gone; what was on its disks stays. It returns when the
// processes are gone; a guest that is off stays off.
func (g *Guest) Kill() {
	if g.power == nil {
		return
	}
	_ = syscall.Kill(-g.power.cmd.Process.Pid, syscall.SIGKILL)
	<-g.power.gone
}

// Reboot is a power cut and a boot.
func (g *Guest) Reboot(ctx context.Context) error {
	g.Kill()
	return g.PowerOn(ctx)
}

// Halt writes everything to the guest's disks and turns it off.
func (g *Guest) Halt(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, haltTimeout, fmt.Errorf("%s did not halt within %v", g.Name, haltTimeout))
	defer cancel()
	// The connection breaks under the last command: its error says nothing.
	_, _ = g.Shell(ctx, "sync; for key in s u o; do echo $key >/proc/sysrq-trigger; done; sleep 10")
	select {
	case <-g.power.gone:
		return nil
	case <-ctx.Done():
		g.Kill()
		return context.Cause(ctx)
	}
}

// CutNetwork drops every packet between the guest and the storage network
// while all links stay up: no socket on either side hears of it.
func (g *Guest) CutNetwork() error { return ip("link set " + storageTap(g.index) + " nomaster") }

// RestoreNetwork undoes [Guest.CutNetwork].
func (g *Guest) RestoreNetwork() error {
	return ip("link set " + storageTap(g.index) + " master " + storageBridge)
}
