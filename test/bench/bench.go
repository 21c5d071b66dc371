package main

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// programs are in a directory of their own, as go build wants no C beside Go.
//
//go:embed c/*.c
var programs embed.FS

// bench has what the cases share.
type bench struct {
	o options
	// dir has the programs, the disks and the logs, and goes with the bench.
	dir     string
	running []*target
}

func newBench(ctx context.Context, o options) (_ *bench, err error) {
	// Set, and not only found, it is what the children have too: hundreds of sessions
	// want more than the usual 1024.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, fmt.Errorf("limit of open files: %w", err)
	}
	dir, err := os.MkdirTemp(o.dir, "bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{o: o, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	for name, libraries := range map[string][]string{"iscsiload": {"-liscsi", "-lpthread"}, "nulltarget": {"-lpthread"}} {
		source, err := programs.ReadFile("c/" + name + ".c")
		if err != nil {
			return nil, err
		}
		cc := exec.CommandContext(ctx, "cc", append([]string{"-O2", "-o", filepath.Join(dir, name), "-xc", "-", "-xnone"}, libraries...)...)
		cc.Stdin = bytes.NewReader(source)
		if out, err := cc.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("cc %s.c: %w (hack/install-deps bench installs what it needs on Debian)\n%s", name, err, out)
		}
	}
	return b, nil
}

// close ends the targets and removes the files.
func (b *bench) close() error {
	err := b.stopAll()
	return errors.Join(err, os.RemoveAll(b.dir))
}

func (b *bench) stopAll() error {
	var all []error
	for _, t := range b.running {
		all = append(all, t.stop())
	}
	b.running = nil
	return errors.Join(all...)
}

func (b *bench) launch(ctx context.Context, k kind) (*target, error) {
	if k.keeps {
		if err := fill(ctx, b.disk(k.name)); err != nil {
			return nil, err
		}
	}
	t, err := k.start(ctx)
	if err != nil {
		return nil, err
	}
	t.kind = k
	b.running = append(b.running, t)
	return t, nil
}

// fill writes every block of a disk and flushes it, so that no target reads holes and none
// has another's disk written out under it.
func fill(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := bytes.Repeat([]byte{0x5a}, 1<<20)
	for range span / len(block) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// forget takes a disk out of memory, from an offset on; what is before it is there then.
func forget(path string, from int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()                  // it was not written
	if err := f.Sync(); err != nil { // what is dirty stays
		return err
	}
	// Nothing is read ahead, which would be on its way and could not be forgotten.
	err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	if err == nil {
		_, err = io.CopyN(io.Discard, f, from)
	}
	if err == nil {
		err = os.NewSyscallError("fadvise", unix.Fadvise(int(f.Fd()), from, 0, unix.FADV_DONTNEED))
	}
	return err
}

// cases gives every case to every target, in turn.
func (b *bench) cases(ctx context.Context, chosen []workload, r *report) error {
	for _, k := range b.kinds() {
		if !slices.ContainsFunc(chosen, k.has) {
			continue
		}
		t, err := b.launch(ctx, k)
		if err != nil {
			return err
		}
		if !k.keeps {
			continue
		}
		// Figures of a target that loses data would say nothing.
		check := workload{mode: "write-verify", block: 64 << 10, depth: 8, sessions: 2}
		if _, _, err := b.load(ctx, t, check, 1); err != nil {
			return fmt.Errorf("%s, asked for what it was given: %w", t.name, err)
		}
		if err := b.overwrite(ctx, t); err != nil {
			return err
		}
	}
	for part := range parts {
		of := slices.DeleteFunc(slices.Clone(chosen), func(w workload) bool { return w.part() != part })
		if err := b.rounds(ctx, of, r); err != nil {
			return err
		}
	}
	for _, t := range b.running {
		m, err := t.memory()
		r.peak(t.name, m.peak, err)
	}
	r.fail(b.stopAll())
	return nil
}

// overwrite has an initiator write all of a disk, and flushes it. What a write of a part
// costs then depends on the pieces in which the page cache got what is there.
func (b *bench) overwrite(ctx context.Context, t *target) error {
	if err := forget(b.disk(t.name), 0); err != nil {
		return err
	}
	const secs = 3
	if _, _, err := b.load(ctx, t, workload{mode: "write", block: 1 << 20, depth: 8, sessions: 1}, secs); err != nil {
		return fmt.Errorf("%s, to be written: %w", t.name, err)
	}
	f, err := os.OpenFile(b.disk(t.name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// rounds gives these cases to every target, in turn, as often as is asked for.
func (b *bench) rounds(ctx context.Context, chosen []workload, r *report) error {
	if len(chosen) == 0 {
		return nil
	}
	for round := range b.o.rounds {
		began := time.Now()
		for _, w := range chosen {
			for _, t := range b.running {
				if !t.has(w) {
					continue
				}
				s, err := b.measure(ctx, t, w)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				r.add(w, t.name, round, s, err)
			}
			b.fios(ctx, w, round, r)
		}
		fmt.Fprintf(os.Stderr, "round %d of %d of %d cases took %d s\n", round+1, b.o.rounds, len(chosen), int(time.Since(began).Seconds()))
	}
	return nil
}

// coldSecs is how long a case takes of what is in no memory.
const coldSecs = 1

func (b *bench) measure(ctx context.Context, t *target, w workload) (sample, error) {
	secs := b.o.secs
	if w.cold {
		secs = coldSecs
	}
	// Memory that was freed a while ago a hypervisor may have back, to be given again page
	// by page: each frees what it had the last time, and nobody frees another's.
	if w.cold && t.name != direct {
		from := int64(0)
		if w.beside != "" {
			from = span / 2
		}
		if err := forget(b.disk(t.name), from); err != nil {
			return sample{}, err
		}
	}
	before, err := t.cpu()
	if err != nil {
		return sample{}, err
	}
	s, ops, err := b.load(ctx, t, w, secs)
	if err != nil {
		return sample{}, err
	}
	after, err := t.cpu()
	s.CPU = (after - before).Seconds() * 1e6 / ops
	return s, err
}

func (b *bench) load(ctx context.Context, t *target, w workload, secs int) (sample, float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(secs+120)*time.Second)
	defer cancel()
	cmd := b.iscsiload(ctx, w.arguments(t.url, secs))
	out, err := cmd.Output()
	if err != nil {
		return sample{}, 0, said(err, cmd.Stderr)
	}
	return parseLoad(out)
}

func (b *bench) iscsiload(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, "iscsiload"), args...)
	cmd.Stderr = &bytes.Buffer{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return cmd
}

// said joins an error with the first lines of what a program had to say about it.
func said(err error, stderr io.Writer) error {
	lines := strings.SplitN(strings.TrimSpace(stderr.(*bytes.Buffer).String()), "\n", 4)
	return fmt.Errorf("%w: %s", err, strings.Join(lines[:min(3, len(lines))], "; "))
}

// idle looks at what sessions cost that have each read a little and now wait, in targets
// that have served nothing else.
func (b *bench) idle(ctx context.Context, r *report) error {
	for _, k := range b.kinds() {
		if !k.idles {
			continue
		}
		t, err := b.launch(ctx, k)
		if err != nil {
			return err
		}
		i, err := b.hold(ctx, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.addIdle(t.name, i, err)
		r.fail(b.stopAll())
	}
	return nil
}

func (b *bench) hold(ctx context.Context, t *target) (i idle, err error) {
	before, err := t.memory()
	if err != nil {
		return idle{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	w := workload{mode: "randread", block: 4096, depth: 8, sessions: b.o.idle}
	cmd := b.iscsiload(ctx, append(w.arguments(t.url, 0), "-w"))
	hold, err := cmd.StdinPipe()
	if err != nil {
		return idle{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return idle{}, err
	}
	if err := cmd.Start(); err != nil {
		return idle{}, err
	}
	defer func() {
		_ = hold.Close()
		if e := cmd.Wait(); e != nil {
			err = said(e, cmd.Stderr)
		}
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return idle{}, err
	}
	if _, _, err := parseLoad(line); err != nil {
		return idle{}, err
	}
	after, err := t.memory()
	return newIdle(b.o.idle, before, after), err
}

// cpu is the process's time on processors so far.
func (t *target) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", t.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, p, err := parseProcess(string(text))
	return p.own, err
}

// tick is what /proc counts time in, on every architecture that Debian has.
const tick = 10 * time.Millisecond

// process has the times on processors of a process and of those of its children that ended.
type process struct {
	parent        int
	own, children time.Duration
}

// parseProcess reads /proc/PID/stat: the user's and the system's time together.
func parseProcess(stat string) (pid int, p process, err error) {
	number, _, _ := strings.Cut(stat, " ")
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:]) // the name, before it, may hold anything
	if len(fields) < 15 {
		return 0, process{}, fmt.Errorf("stat of a process is %q", stat)
	}
	var n [6]int
	for i, field := range []string{number, fields[1], fields[11], fields[12], fields[13], fields[14]} {
		if n[i], err = strconv.Atoi(field); err != nil {
			return 0, process{}, fmt.Errorf("stat of a process is %q: %w", stat, err)
		}
	}
	return n[0], process{parent: n[1], own: time.Duration(n[2]+n[3]) * tick, children: time.Duration(n[4]+n[5]) * tick}, nil
}

// memory is resident, in MiB.
type memory struct{ now, peak float64 }

func (t *target) memory() (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.cmd.Process.Pid))
	if err != nil {
		return memory{}, err
	}
	return processMemory(string(text))
}

// processMemory reads /proc/PID/status.
func processMemory(status string) (memory, error) {
	var m memory
	for field, to := range map[string]*float64{"\nVmRSS:": &m.now, "\nVmHWM:": &m.peak} {
		_, rest, _ := strings.Cut(status, field)
		var kib float64
		if _, err := fmt.Sscanf(rest, "%f kB", &kib); err != nil {
			return memory{}, fmt.Errorf("status of a process has no %q: %w", field, err)
		}
		*to = kib / 1024
	}
	return m, nil
}
