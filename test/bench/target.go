package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The parties that are always there; ratios are ours by each other one's.
const (
	ours     = "ours"
	direct   = "direct" // ours too
	null     = "null"
	nullFile = "nullfile"
	tgt      = "tgt"
)

// iqn is every target's name: each is alone at its port.
const iqn = "iqn.2026-11.io.csi-ietd.bench:disk"

// kind is how to start one of the targets.
type kind struct {
	name  string
	start func(ctx context.Context) (*target, error)
	// keeps says that it gives back what was written, digests that it knows them,
	// idles that its memory is worth a look, and direct that it is only for what is in no
	// memory.
	keeps, digests, idles, direct bool
	// besides are the commands beside reads that it knows.
	besides string
}

// has says whether a case is for it.
func (k kind) has(w workload) bool {
	return (k.digests || !w.digests) && (k.keeps || !w.cold) && (w.cold || !k.direct) && strings.Contains(k.besides, w.beside)
}

// kinds are the targets in the order of the table.
func (b *bench) kinds() []kind {
	all := []kind{
		{name: null, start: func(ctx context.Context) (*target, error) { return b.startNull(ctx, null, "") }},
		{name: nullFile, keeps: true, besides: "cold", start: func(ctx context.Context) (*target, error) {
			return b.startNull(ctx, nullFile, b.disk(nullFile))
		}},
	}
	if !b.o.noTgt {
		all = append(all, kind{name: tgt, keeps: true, digests: true, idles: true, besides: "cold sync", start: b.startTgt})
	}
	for _, p := range append(b.o.peers, peer{ours, b.o.ours}) {
		all = append(all, kind{name: p.name, keeps: true, digests: true, idles: true, besides: "cold sync unmap", start: func(ctx context.Context) (*target, error) {
			return b.startIetd(ctx, p.name, p.path, "fileio,IOMode=wb")
		}})
	}
	return append(all, kind{name: direct, keeps: true, direct: true, start: func(ctx context.Context) (*target, error) {
		return b.startIetd(ctx, direct, b.o.ours, "blockio")
	}})
}

// target is a running one.
type target struct {
	kind
	cmd   *exec.Cmd
	url   string
	log   string
	ended chan struct{}
	err   error // of the process; valid when ended is closed
}

func (b *bench) disk(name string) string { return filepath.Join(b.dir, name+".img") }

func (b *bench) startNull(ctx context.Context, name, disk string) (*target, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{strconv.Itoa(port)}
	if disk != "" {
		args = append(args, strconv.Itoa(span>>20), disk)
	}
	return b.start(ctx, name, port, 0, exec.Command(filepath.Join(b.dir, "nulltarget"), args...))
}

// startTgt has tgtd's own socket among our files: there may be another tgtd.
func (b *bench) startTgt(ctx context.Context) (*target, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(), "TGT_IPC_SOCKET="+filepath.Join(b.dir, "tgtd"))
	daemon := exec.Command("tgtd", "-f", "--iscsi", fmt.Sprintf("portal=127.0.0.1:%d", port))
	daemon.Env = env
	t, err := b.start(ctx, tgt, port, 1, daemon)
	if err != nil {
		return nil, err
	}
	for _, args := range []string{
		"--mode target --op new --tid 1 --targetname " + iqn,
		"--mode target --op update --tid 1 --name HeaderDigest --value None,CRC32C",
		"--mode logicalunit --op new --tid 1 --lun 1 --backing-store " + b.disk(tgt),
		"--mode target --op bind --tid 1 --initiator-address ALL",
	} {
		cmd := exec.CommandContext(ctx, "tgtadm", append([]string{"--lld", "iscsi"}, strings.Fields(args)...)...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.kill()
			return nil, fmt.Errorf("tgtadm %s: %w: %s", args, err, out)
		}
	}
	return t, nil
}

// startIetd gives a csi-ietd the lines that its documents have for a fast network, and
// digests for who asks for them; its disk is of that type.
func (b *bench) startIetd(ctx context.Context, name, path, diskType string) (*target, error) {
	document, err := os.ReadFile("docs/ietd.md")
	if err != nil {
		return nil, fmt.Errorf("%w (run this in the repository's root)", err)
	}
	speed, err := speedLines(string(document))
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(b.dir, name+".conf")
	text := "Target " + iqn + "\n" + speed + "HeaderDigest None,CRC32C\nDataDigest None,CRC32C\n" +
		"Lun 0 Path=" + b.disk(name) + ",Type=" + diskType + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	return b.start(ctx, name, port, 0, exec.Command(path, "ietd", "-f", "-c", conf, "-a", "127.0.0.1", "-p", strconv.Itoa(port),
		"--socket=", "--state-dir", filepath.Join(b.dir, name+".state")))
}

// speedLines are the directives that docs/ietd.md has in its section Speed.
func speedLines(document string) (string, error) {
	_, section, ok := strings.Cut(document, "\n## Speed\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var lines strings.Builder
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "    ") {
			lines.WriteString(line)
		}
	}
	if !ok || lines.Len() == 0 {
		return "", errors.New("docs/ietd.md has no directives in a section Speed")
	}
	return lines.String(), nil
}

// freePort is one that nobody listens at now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// start returns when the target listens. It dies with this process.
func (b *bench) start(ctx context.Context, name string, port, lun int, cmd *exec.Cmd) (*target, error) {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	t := &target{
		cmd: cmd, url: fmt.Sprintf("iscsi://%s/%s/%d", address, iqn, lun),
		log: filepath.Join(b.dir, name+".log"), ended: make(chan struct{}),
	}
	t.name = name
	log, err := os.Create(t.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own, as a service has: an interrupt from the terminal comes to us
	// alone, who end it, and Linux schedules it against the initiator as a whole.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		t.err = cmd.Wait()
		close(t.ended)
	}()
	if err := t.listens(ctx, address); err != nil {
		t.kill()
		return nil, err
	}
	return t, nil
}

func (t *target) kill() {
	_ = t.cmd.Process.Kill() // it may have ended by itself
	<-t.ended
}

func (t *target) listens(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-t.ended:
			return fmt.Errorf("%s ended (%w): %s", t.name, t.err, t.said())
		case <-ctx.Done():
			return fmt.Errorf("nothing of %s listens: %w", t.name, ctx.Err())
		}
	}
}

// said is the end of the target's log.
func (t *target) said() string {
	text, err := os.ReadFile(t.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// stop ends the process and waits for that. tgtd takes a SIGTERM for a question, and the
// null targets keep nothing to be put in order.
func (t *target) stop() error {
	end := syscall.SIGKILL
	if t.name != tgt && t.name != null && t.name != nullFile {
		end = syscall.SIGTERM
	}
	select {
	case <-t.ended:
		return fmt.Errorf("%s had ended (%w): %s", t.name, t.err, t.said())
	default:
	}
	_ = t.cmd.Process.Signal(end) // it may end this moment
	late := time.NewTimer(15 * time.Second)
	defer late.Stop()
	select {
	case <-t.ended:
		if end == syscall.SIGTERM && t.err != nil {
			return fmt.Errorf("%s ended with %w: %s", t.name, t.err, t.said())
		}
		return nil
	case <-late.C:
		t.kill()
		return fmt.Errorf("%s did not end when it was told to", t.name)
	}
}
