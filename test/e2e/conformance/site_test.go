package conformance

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Addresses of a site. The host has several, the storage machine two portals.
const (
	portal      = "10.77.0.1"
	otherPortal = "10.77.0.2"
	portal6     = "fd77::1"
	hostHere    = "10.77.1.5"
	hostThere   = "10.77.2.5"
	host6       = "fd77::5"
)

// site is a storage machine and a host as far as their network goes: two namespaces with
// a cable between them. libiscsi cannot choose the address that a login comes from; the
// host's route does.
type site struct {
	storage, host string // the process that keeps the namespace, by its number
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{storage: namespace(t), host: namespace(t)}
	for _, step := range [][2]string{
		{s.storage, "ip link set lo up; ip link add cable type veth peer name cable netns " + s.host},
		{s.host, "ip link set lo up; ip link set cable up; ip addr add " + hostHere + "/16 dev cable; ip addr add " + hostThere + "/16 dev cable; ip addr add " + host6 + "/64 dev cable nodad"},
		{s.storage, "ip link set cable up; ip addr add " + portal + "/16 dev cable; ip addr add " + otherPortal + "/16 dev cable; ip addr add " + portal6 + "/64 dev cable nodad"},
	} {
		tool(t, "nsenter", "-t", step[0], "-n", "sh", "-ec", step[1])
	}
	s.comeFrom(t, hostHere)
	return s
}

// namespace makes a network that ends with the test.
func namespace(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("a network namespace: %v (this test needs root)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	return fmt.Sprint(cmd.Process.Pid)
}

// comeFrom chooses the host's address in what it opens from then on.
func (s *site) comeFrom(t *testing.T, address string) {
	t.Helper()
	tool(t, "nsenter", "-t", s.host, "-n", "ip", "route", "replace", "10.77.0.0/24", "dev", "cable", "src", address)
}

func within(ctx context.Context, namespace, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", namespace, "-n", name}, args...)...)
}

// try runs one of the host's tools, with more in its environment.
func (s *site) try(env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := within(ctx, s.host, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// What libiscsi says of the statuses of a login.
const (
	noProof  = "Status: Authentication failure(513)"
	notFound = "Status: Target not found(515)"
	tooMany  = "Status: Too many connections(518)"
)

const initiator = "iqn.2026-11.io.csi-ietd.test:host"

// serial logs in and returns the serial number of the logical unit, or what iscsi-inq says
// in its place.
func (s *site) serial(name, url string, env ...string) (string, error) {
	out, err := s.try(env, "iscsi-inq", "-i", name, "-e", "1", "-c", "128", url)
	if m := regexp.MustCompile(`Unit Serial Number:\[ *(\S+)\]`).FindStringSubmatch(out); m != nil && err == nil {
		return m[1], nil
	}
	return out, err
}

// admits wants a login that finds the unit with this serial number.
func (s *site) admits(t *testing.T, serial, url string, env ...string) {
	t.Helper()
	if out, err := s.serial(initiator, url, env...); err != nil || out != serial {
		t.Errorf("%s %v: %v, want the unit %s\n%s", url, env, err, serial, out)
	}
}

// refuses wants a login that fails, for a reason.
func (s *site) refuses(t *testing.T, why, url string, env ...string) {
	t.Helper()
	if out, err := s.serial(initiator, url, env...); err == nil || !strings.Contains(out, why) {
		t.Errorf("%s %v: %v, want %q\n%s", url, env, err, why, out)
	}
}

// shows wants discovery to tell of these targets at these portals and of no more.
func (s *site) shows(t *testing.T, url string, want ...string) {
	t.Helper()
	out, err := s.try(nil, "iscsi-ls", "-i", initiator, url)
	var got []string
	for _, m := range regexp.MustCompile(`Target:(\S+) Portal:(\S+):3260,1`).FindAllStringSubmatch(out, -1) {
		got = append(got, m[1]+" "+m[2])
	}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s shows %q, want %q; %v\n%s", url, got, want, err, out)
	}
}

// daemon is an ietd of the storage machine, with its files in a directory.
type daemon struct {
	*site
	dir string
	cmd *exec.Cmd
	log *logOf
}

// start starts one. It ends with the test.
func (s *site) start(t *testing.T, conf string, args ...string) *daemon {
	t.Helper()
	d := &daemon{site: s, dir: t.TempDir()}
	d.write(t, "ietd.conf", conf)
	d.cmd = within(context.Background(), s.storage, binary, append([]string{"ietd", "-f", "-c", d.path("ietd.conf"), "--access-dir", d.dir, "--state-dir", d.path("state"), "--socket", d.path("socket")}, args...)...)
	_, d.log = serve(t, d.cmd)
	return d
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// write writes a file; a text of nothing takes it away.
func (d *daemon) write(t *testing.T, name, text string) {
	t.Helper()
	var err error
	if text == "" {
		err = os.RemoveAll(d.path(name))
	} else {
		err = os.WriteFile(d.path(name), []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// admin is ietadm.
func (d *daemon) admin(t *testing.T, args ...string) string {
	t.Helper()
	return tool(t, binary, append([]string{"ietadm", "--socket", d.path("socket")}, args...)...)
}

// reload has the daemon read another configuration, and returns when what it serves has
// a line.
func (d *daemon) reload(t *testing.T, conf, sign string) {
	t.Helper()
	d.write(t, "ietd.conf", conf)
	d.hangup(t)
	eventually(t, "the configuration", func() bool { return strings.Contains(d.admin(t, "--op", "show"), sign) })
}

func (d *daemon) hangup(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

var sid = regexp.MustCompile(`sid:(\d+)`)

// sessions are the numbers of those that there are.
func (d *daemon) sessions(t *testing.T) (list []string) {
	t.Helper()
	for _, m := range sid.FindAllStringSubmatch(d.admin(t, "--op", "show", "--proc", "session"), -1) {
		list = append(list, m[1])
	}
	return list
}

func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// reader is iscsi-perf, which reads until it is told to end.
type reader struct {
	cmd *exec.Cmd
	out *logOf
}

func (s *site) read(t *testing.T, url string) *reader {
	t.Helper()
	r := &reader{cmd: within(context.Background(), s.host, "iscsi-perf", "-i", initiator+"-reader", "-l", "-x", "0", url)}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = r.cmd.Stdout // the same pipe
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.out = follow(pipe)
	t.Cleanup(func() { _ = r.end(syscall.SIGKILL) }) // unless the test has
	r.goesOn(t)
	return r
}

// goesOn returns when more was read.
func (r *reader) goesOn(t *testing.T) {
	t.Helper()
	const report = "iops current "
	before := strings.Count(r.out.sofar(), report)
	eventually(t, "iscsi-perf to read more", func() bool { return strings.Count(r.out.sofar(), report) > before })
}

// end ends it with a signal and says whether a read has failed.
func (r *reader) end(signal os.Signal) error {
	if r.cmd.ProcessState != nil {
		return nil
	}
	// Twice: it miscounts what is under way after a unit attention, which it takes as
	// it should else, and then only a second signal ends it. Its status is that of
	// its reads all the same.
	_ = r.cmd.Process.Signal(signal)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ended := false; !ended; {
		select {
		case <-r.out.done:
			ended = true
		case <-tick.C:
			_ = r.cmd.Process.Signal(signal)
		}
	}
	return r.cmd.Wait()
}

// writer is qemu-io, whose initiator is libiscsi too: it writes blocks and finds them
// again, one after the other.
type writer struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *logOf
	turns atomic.Int64
	stop  chan struct{}
	done  chan struct{}
}

func (s *site) writeAndFind(t *testing.T, url string) *writer {
	t.Helper()
	w := &writer{cmd: within(context.Background(), s.host, "qemu-io", "-f", "raw", "-t", "none", url), stop: make(chan struct{}), done: make(chan struct{})}
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.cmd.Stderr = w.cmd.Stdout
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.out = follow(pipe)
	go w.run()
	t.Cleanup(func() { _ = w.end() }) // unless the test has
	w.goesOn(t)
	return w
}

// run gives it a command when it has done the last one: of two it would do one, and wait
// for more of its input.
func (w *writer) run() {
	defer close(w.done)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := int64(0); ; n++ {
		command, turn := "write", n/2
		if n%2 == 1 {
			command = "read"
		}
		if _, err := fmt.Fprintf(w.in, "%s -P %d %dk 64k\n", command, turn%255+1, turn%64*64); err != nil {
			return
		}
		for int64(strings.Count(w.out.sofar(), ", 1 ops;")) <= n {
			select {
			case <-w.stop:
				return
			case <-w.out.done:
				return
			case <-tick.C:
			}
		}
		w.turns.Store(turn)
	}
}

func (w *writer) goesOn(t *testing.T) {
	t.Helper()
	before := w.turns.Load()
	eventually(t, "qemu-io to write more", func() bool { return w.turns.Load() > before+3 })
}

// end ends it and says whether a block was not written, or not found again.
func (w *writer) end() error {
	if w.cmd.ProcessState != nil {
		return nil
	}
	close(w.stop)
	<-w.done
	_ = w.in.Close() // the end of its input is the end of it
	select {
	case <-w.out.done:
	case <-time.After(20 * time.Second):
		_ = w.cmd.Process.Kill()
	}
	text := w.out.wait()
	if err := w.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, text[max(0, len(text)-1000):])
	}
	if at := strings.Index(text, "ailed"); at >= 0 {
		return fmt.Errorf("qemu-io: %s", text[max(0, at-200):min(len(text), at+200)])
	}
	return nil
}

// under changes things while the host reads and writes, and wants no error and no
// session that ended: libiscsi logs in anew on its own, and would not tell.
func (d *daemon) under(t *testing.T, url string, change func()) {
	t.Helper()
	r, w := d.read(t, url), d.writeAndFind(t, url)
	before := d.sessions(t)
	change()
	r.goesOn(t)
	w.goesOn(t)
	if after := d.sessions(t); len(before) != 2 || !slices.Equal(before, after) {
		t.Errorf("sessions %q, were %q", after, before)
	}
	if err := w.end(); err != nil {
		t.Error(err)
	}
	if err := r.end(syscall.SIGINT); err != nil {
		t.Errorf("iscsi-perf: %v\n%s", err, r.out.sofar())
	}
}
