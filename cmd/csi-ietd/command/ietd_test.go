package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// writeConf writes a configuration; @ stands for its directory, in which there
// are disk.img of 1 MiB and other.img of 2 MiB.
func writeConf(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for name, size := range map[string]int{"disk.img": 1 << 20, "other.img": 2 << 20} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "ietd.conf")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "@", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const ietdTestConf = `IncomingUser discoverer discovery-secret
Target iqn.2026-11.io.example:disk
	Lun 0 Path=@/disk.img,Type=fileio,IOMode=wb,ScsiSN=SERIAL-1
	Lun 1 Path=@/other.img,IOMode=ro
	Lun 2 Path=@/disk.img,IOMode=wt
Target iqn.2026-11.io.example:chap
	IncomingUser joe secret-of-joe
	IncomingUser jim secret-of-jim
	Lun 0 Path=@/other.img,IOMode=ro`

// output is what a command prints while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// startIetd runs the command until the test ends and returns its log, and the socket of
// ietadm.
func startIetd(t *testing.T, conf, address string) (log *output, socket string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(conf)
	socket = filepath.Join(dir, "ietadm.sock")
	log = &output{}
	cmd := newIetdCommand()
	cmd.SetErr(log)
	cmd.SetArgs([]string{"-f", "-c", conf, "-a", host, "-p", port, "--state-dir", filepath.Join(dir, "state"), "--socket", socket, "--access-dir", dir})
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ietd: %v", err)
		}
	})
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(log.String(), "Serving ietd") {
		select {
		case err := <-done:
			done <- nil
			t.Fatalf("ietd ended: %v", err)
		case <-deadline:
			t.Fatalf("ietd does not serve:\n%s", log)
		case <-tick.C:
		}
	}
	return log, socket
}

// TestIetd looks at the targets with libiscsi's tools.
func TestIetd(t *testing.T) {
	portal := freePortal(t)
	log, _ := startIetd(t, writeConf(t, ietdTestConf), portal)
	disk, chap := portal+"/iqn.2026-11.io.example:disk", portal+"/iqn.2026-11.io.example:chap"
	tests := []struct {
		name string
		args []string
		want string
		fail bool
	}{
		{"discovery", []string{"iscsi-ls", "iscsi://discoverer%discovery-secret@" + portal}, "Target:iqn.2026-11.io.example:disk Portal:" + portal, false},
		{"discovery without proof", []string{"iscsi-ls", "iscsi://" + portal}, "", true},
		{"identity", []string{"iscsi-inq", "iscsi://" + disk + "/0"}, "Vendor:IET     \nProduct:VIRTUAL-DISK", false},
		{"serial", []string{"iscsi-inq", "-e", "1", "-c", "128", "iscsi://" + disk + "/0"}, "SERIAL-1", false},
		{"designators", []string{"iscsi-inq", "-e", "1", "-c", "131", "iscsi://" + disk + "/1"}, "IET", false},
		{"size", []string{"iscsi-readcapacity16", "iscsi://" + disk + "/1"}, "Total size:2097152", false},
		{"no such LUN", []string{"iscsi-readcapacity16", "iscsi://" + disk + "/7"}, "", true},
		{"joe", []string{"iscsi-readcapacity16", "iscsi://joe%secret-of-joe@" + chap + "/0"}, "Total size:2097152", false},
		{"jim", []string{"iscsi-readcapacity16", "iscsi://jim%secret-of-jim@" + chap + "/0"}, "Total size:2097152", false},
		{"jim with joe's secret", []string{"iscsi-readcapacity16", "iscsi://jim%secret-of-joe@" + chap + "/0"}, "", true},
		{"nobody", []string{"iscsi-readcapacity16", "iscsi://" + chap + "/0"}, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), tt.args[0], tt.args[1:]...).CombinedOutput()
			if (err != nil) != tt.fail || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v: %v, want %q in\n%s", tt.args, err, tt.want, out)
			}
		})
	}
	if n := strings.Count(log.String(), "Serving ietd"); n != 1 || !strings.Contains(log.String(), `targets=2 addresses=`+portal) {
		t.Errorf("%d lines say what is served:\n%s", n, log)
	}
	if strings.Contains(log.String(), "secret-of") || strings.Contains(log.String(), "discovery-secret") {
		t.Errorf("the log has a secret:\n%s", log)
	}
}

// TestIetadm: the command line of ietadm, its output and its exit statuses.
func TestIetadm(t *testing.T) {
	portal := freePortal(t)
	conf := writeConf(t, ietdTestConf)
	if err := os.Chmod(conf, 0o640); err != nil {
		t.Fatal(err)
	}
	_, socket := startIetd(t, conf, portal)
	tests := []struct {
		args   []string
		status int
		want   string // on standard output, or on standard error of a failure
	}{
		{[]string{"-o", "show", "-t", "1"}, 0, "Wthreads=8\nType=0\n"},
		{[]string{"--op=show", "--tid=1", "--sid=0"}, 0, "InitialR2T=Yes\nImmediateData=No\n"},
		{[]string{"--op", "show", "--proc", "volume"}, 0, "tid:2 name:iqn.2026-11.io.example:chap\n\tlun:0 state:0 iotype:fileio iomode:ro"},
		{[]string{"--op", "show", "--proc=session", "--json"}, 0, `[{"tid":1,`},
		{[]string{"--op", "show", "--tid=2", "--user"}, 0, "IncomingUser joe\nIncomingUser jim\n"},
		{[]string{"-o", "new", "-t", "0", "-p", "Name=iqn.2026-11.io.example:new"}, 0, ""},
		{[]string{"-o", "new", "-t", "3", "-l", "0x1", "-p", "Type=nullio"}, 0, ""},
		{[]string{"-o", "delete", "-t", "3", "-l", "1"}, 0, ""},
		{[]string{"-o", "save"}, 0, ""},
		{[]string{"-o", "show", "-t", "9"}, 254, "no target 9"},
		{[]string{"-o", "update", "-t", "1", "-p", "MaxBurstLength=x"}, 234, "MaxBurstLength"},
		{[]string{"-o", "new", "-t", "1", "-p", "Name=iqn.x"}, 239, "target 1"},
		{[]string{"-o", "explode"}, 255, "want new, delete"},
		{[]string{"--tid=1"}, 255, "--op"},
		{[]string{"--op", "show", "--tid=minus"}, 255, "tid"},
		{[]string{"--op", "show", "extra"}, 255, "extra"},
		{[]string{"--help"}, 0, "--redirect"},
		{[]string{"-v"}, 0, "version"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			cmd := newProgram("ietadm")
			cmd.SetOut(&stdout)
			got := run(t.Context(), cmd, append(tt.args, "--socket", socket), &stderr)
			said := stdout.String()
			if tt.status != 0 {
				said = stderr.String()
			}
			if got != tt.status || !strings.Contains(said, tt.want) {
				t.Errorf("status %d, want %d; it says %q %q, want %q", got, tt.status, &stdout, &stderr, tt.want)
			}
		})
	}
	saved, err := os.ReadFile(conf)
	if err != nil || !strings.Contains(string(saved), "iqn.2026-11.io.example:new") {
		t.Errorf("saved: %s %v", saved, err)
	}
	if st, err := os.Stat(conf); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("saved with mode %v, %v", st.Mode(), err)
	}
	if old, err := os.ReadFile(conf + ".old"); err != nil || strings.Contains(string(old), "example:new") {
		t.Errorf("the one before: %s %v", old, err)
	}
	var stderr bytes.Buffer
	if got := run(t.Context(), newProgram("ietadm"), []string{"-o", "show", "--socket", socket + "x"}, &stderr); got != 254 || !strings.Contains(stderr.String(), "is ietd running") {
		t.Errorf("without a target: status %d, %s", got, &stderr)
	}
}

func TestIetdRefuses(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, busyPort, err := net.SplitHostPort(busy.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	const target = "Target iqn.2026-11.io.example:disk\n"
	tests := []struct {
		name, conf string
		flags      []string
		status     int
		want       string
	}{
		{"address with a port", "", []string{"-a", "127.0.0.1:3260"}, 1, "without a port"},
		{"host name", "", []string{"-a", "localhost"}, 1, "IPv4 or IPv6"},
		{"debug level", "", []string{"-d", "3"}, 1, "want 0, 1 or 2"},
		{"log format", "", []string{"--log-format", "xml"}, 1, "text or json"},
		{"argument", "", []string{"start"}, 1, "start"},
		{"no such file", "", []string{"-c", "/nonexistent/ietd.conf"}, 255, "/nonexistent/ietd.conf"},
		{"no such user", target, []string{"-u", "nobody-of-that-name"}, 255, "no such user"},
		{"no such group", target, []string{"-g", "4294967290"}, 255, "no such group"},
		{"taken port", target, []string{"-a", "127.0.0.1", "-p", busyPort}, 255, "unable to bind server socket (address already in use)!"},
		{"broken line", "Tarqet x", nil, 255, `ietd.conf:1: "Tarqet"`},
		{"no such disk", target + "Lun 0 Path=/nonexistent", nil, 255, "ietd.conf:2: Lun: 0: stat /nonexistent"},
		{"directory", target + "Lun 0 Path=@", nil, 255, "ietd.conf:2: Lun: 0: "},
		{"blockio where there is none", target + "Lun 0 Path=/proc/version,Type=blockio", nil, 255, "no direct I/O"},
		{"path outside", target + "Lun 0 Path=@/../other.img", []string{"--lun-root", "/srv"}, 255, "ietd.conf:2: Lun: 0: "},
		{"block size", target + "Lun 0 Path=@/disk.img,BlockSize=8192", nil, 255, "want 512, 1024, 2048 or 4096"},
		{"two block sizes", target + "Lun 0 Path=@/disk.img\nLun 1 Path=@/disk.img,BlockSize=4096", nil, 255, "ietd.conf:3: Lun: 1"},
		{"bad target name", "Target disk\nLun 0 Path=@/disk.img", nil, 255, "ietd.conf:1: Target: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			args := append([]string{"-f", "-c", writeConf(t, tt.conf), "-p", "0", "--state-dir", dir, "--socket", dir + "/s"}, tt.flags...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var stderr output
			if got := run(ctx, newProgram("ietd"), args, &stderr); got != tt.status || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("status %d, want %d; it says %s, want %q", got, tt.status, &stderr, tt.want)
			}
		})
	}
}

// TestIetdCheck says what a file means, and keeps secrets to itself.
func TestIetdCheck(t *testing.T) {
	var stdout bytes.Buffer
	cmd := newProgram("ietd")
	cmd.SetOut(&stdout)
	var stderr bytes.Buffer
	if got := run(t.Context(), cmd, []string{"--check", "--access-dir", t.TempDir(), "-c", writeConf(t, ietdTestConf)}, &stderr); got != 0 {
		t.Fatalf("status %d: %s", got, &stderr)
	}
	for _, want := range []string{"iqn.2026-11.io.example:disk", "MaxRecvDataSegmentLength", "8192", "joe"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("it does not say %s:\n%s", want, &stdout)
		}
	}
	if strings.Contains(stdout.String(), "secret") {
		t.Errorf("it says a secret:\n%s", &stdout)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "initiators.deny"), []byte("ALL 192.0.2.0/99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(t.Context(), newProgram("ietd"), []string{"--check", "--access-dir", dir, "-c", writeConf(t, ietdTestConf)}, &stderr); got != 255 || !strings.Contains(stderr.String(), "initiators.deny:1") {
		t.Errorf("a broken file of who is allowed: status %d, %s", got, &stderr)
	}
}

// A directory for the state that cannot be used keeps nobody from serving.
func TestStateDir(t *testing.T) {
	portal := freePortal(t)
	conf := writeConf(t, "Target iqn.2026-11.io.example:disk\n")
	if err := os.WriteFile(filepath.Join(filepath.Dir(conf), "state"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log, _ := startIetd(t, conf, portal)
	if n := strings.Count(log.String(), "--state-dir cannot be used"); n != 1 {
		t.Errorf("%d lines say so:\n%s", n, log)
	}
}

// TestMayRead: what another user may not open is named.
func TestMayRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run as root: another user's rights are tried")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for p := dir; len(p) > len(os.TempDir()); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ours, theirs, read := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs"), filepath.Join(dir, "read")
	for path, mode := range map[string]os.FileMode{ours: 0o600, theirs: 0o666, read: 0o644} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	shared := filepath.Join(dir, "shared")
	if err := errors.Join(os.Mkdir(shared, 0o700), os.Chmod(shared, 0o777)); err != nil {
		t.Fatal(err)
	}
	nobody := identity{65534, 65534}
	if err := nobody.mayRead(map[string]bool{theirs: true, shared: true, read: false, filepath.Join(dir, "none"): false}); err != nil {
		t.Error(err)
	}
	for path, writes := range map[string]bool{ours: false, read: true, dir: true} {
		if err := nobody.mayRead(map[string]bool{path: writes}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.ReadFile(ours); err != nil {
		t.Errorf("our own rights are gone: %v", err)
	}
}

// A state directory that -u could not use is told before anything is served: what is
// kept there would be lost.
func TestStateDirOfAnotherUser(t *testing.T) {
	dir := t.TempDir() // mode 0700, ours
	conf := writeConf(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stderr output
	args := []string{"-f", "-c", conf, "-p", "0", "-u", "65534", "--state-dir", dir, "--socket", ""}
	if got := run(ctx, newProgram("ietd"), args, &stderr); got != statusStart || !strings.Contains(stderr.String(), dir+": uid 65534") {
		t.Errorf("status %d; it says %s", got, &stderr)
	}
}

// A pid file that is left is taken over. That a second daemon is refused is seen in the
// lab: a lock of fcntl's is a process's.
func TestPidFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(path, []byte("4294967\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := lockPidFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("it has %q, %v", b, err)
	}
	if err := p.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
	if _, err := lockPidFile(filepath.Join(path, "pid")); err == nil || !strings.Contains(err.Error(), "unable to create pid file") {
		t.Errorf("%v", err)
	}
}
