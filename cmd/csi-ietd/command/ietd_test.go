package command

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
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

// startIetd runs the command until the test ends and returns its log.
func startIetd(t *testing.T, conf, address string) func() string {
	t.Helper()
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logger))
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	cmd := newIetdCommand()
	cmd.SetArgs([]string{"-f", "-c", conf, "-a", host, "-p", port, "--state-dir", filepath.Join(filepath.Dir(conf), "state")})
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ietd: %v", err)
		}
	})
	waitForPortal(t, address, done)
	return func() string { return logger.GetSink().(ktesting.Underlier).GetBuffer().String() }
}

// waitForPortal polls until somebody listens there.
func waitForPortal(t *testing.T, address string, done chan error) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case err := <-done:
			done <- nil
			t.Fatalf("ietd ended: %v", err)
		case <-deadline:
			t.Fatalf("nobody listens on %s: %v", address, err)
		case <-tick.C:
		}
	}
}

// TestIetd looks at the targets with libiscsi's tools.
func TestIetd(t *testing.T) {
	portal := freePortal(t)
	log := startIetd(t, writeConf(t, ietdTestConf), portal)
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
	if n := strings.Count(log(), "Serving ietd"); n != 1 || !strings.Contains(log(), `targets=2 luns=4 addresses="`+portal+`"`) {
		t.Errorf("%d lines say what is served:\n%s", n, log())
	}
	if strings.Contains(log(), "secret-of") || strings.Contains(log(), "discovery-secret") {
		t.Errorf("the log has a secret:\n%s", log())
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
		want       string
	}{
		{"background", "", []string{"-f=false"}, "add -f"},
		{"address with a port", "", []string{"-a", "127.0.0.1:3260"}, "without a port"},
		{"host name", "", []string{"-a", "localhost"}, "IPv4 or IPv6"},
		{"debug level", "", []string{"-d", "3"}, "want 0, 1 or 2"},
		{"no such file", "", []string{"-c", "/nonexistent/ietd.conf"}, "/nonexistent/ietd.conf"},
		{"argument", "", []string{"start"}, "start"},
		{"taken port", target, []string{"-a", "127.0.0.1", "-p", busyPort}, "address already in use"},
		{"broken line", "Tarqet x", nil, `ietd.conf:1: "Tarqet"`},
		{"no such disk", target + "Lun 0 Path=/nonexistent", nil, "ietd.conf:2: Lun: 0: stat /nonexistent"},
		{"directory", target + "Lun 0 Path=@", nil, "ietd.conf:2: Lun: 0: "},
		{"blockio", target + "Lun 0 Path=@/disk.img,Type=blockio", nil, "Type=blockio is not served yet"},
		{"nullio", target + "Lun 0 Type=nullio", nil, "Type=nullio is not served yet"},
		{"block size", target + "Lun 0 Path=@/disk.img,BlockSize=1024", nil, "neither 512 nor 4096"},
		{"two block sizes", target + "Lun 0 Path=@/disk.img\nLun 1 Path=@/disk.img,BlockSize=4096", nil, "ietd.conf:3: Lun: 1"},
		{"bad target name", "Target disk\nLun 0 Path=@/disk.img", nil, "ietd.conf:1: Target: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := newIetdCommand()
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			cmd.SetArgs(append([]string{"-f", "-c", writeConf(t, tt.conf), "-p", "0", "--state-dir", t.TempDir()}, tt.flags...))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := cmd.ExecuteContext(ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestLunIdentity pins what hosts know a disk by: it must never change.
func TestLunIdentity(t *testing.T) {
	type identity struct {
		Serial, T10ID string
		NAA           uint64
	}
	of := func(target string, l ietconf.LUN) identity {
		c := lunConfig(target, l, nil)
		return identity{c.Serial, c.T10ID, c.NAA}
	}
	const name = "iqn.2026-11.io.example:disk"
	got := []identity{
		of(name, ietconf.LUN{Number: 0}),
		of(name, ietconf.LUN{Number: 1}),
		of(name+"2", ietconf.LUN{Number: 0}),
		of(name, ietconf.LUN{Number: 0, ScsiSN: "sn", ScsiID: "id"}),
	}
	want := []identity{
		{"7f4648f9dc45d29a", "7f4648f9dc45d29a", 0x37f4648f9dc45d29},
		{"254e6801ea9f9144", "254e6801ea9f9144", 0x3254e6801ea9f914},
		{"f2168b26557a53c1", "f2168b26557a53c1", 0x3f2168b26557a53c},
		{"sn", "id", 0x37f4648f9dc45d29},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, i := range got {
		if i.NAA>>60 != 3 {
			t.Errorf("NAA %x is not of type 3h", i.NAA)
		}
	}
}

func TestLunModes(t *testing.T) {
	for mode, want := range map[ietconf.IOMode][2]bool{ // ReadOnly, WriteCache
		ietconf.WriteThrough: {false, false}, ietconf.WriteBack: {false, true}, ietconf.ReadOnly: {true, false},
	} {
		if c := lunConfig("iqn.x", ietconf.LUN{IOMode: mode}, nil); c.ReadOnly != want[0] || c.WriteCache != want[1] {
			t.Errorf("IOMode=%s: ReadOnly %v, WriteCache %v", mode, c.ReadOnly, c.WriteCache)
		}
	}
}

func TestGrants(t *testing.T) {
	in := ietconf.Accounts{Incoming: []ietconf.Account{{User: "a", Password: "1"}, {User: "b", Password: "2"}}, Outgoing: &ietconf.Account{User: "t", Password: "3"}}
	want := []iscsitarget.Grant{
		{CHAP: &iscsitarget.CHAP{User: "a", Secret: "1", MutualUser: "t", MutualSecret: "3"}},
		{CHAP: &iscsitarget.CHAP{User: "b", Secret: "2", MutualUser: "t", MutualSecret: "3"}},
	}
	if diff := cmp.Diff(want, grantsOf(in)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]iscsitarget.Grant{{}}, grantsOf(ietconf.Accounts{})); diff != "" {
		t.Errorf("without accounts (-want +got):\n%s", diff)
	}
}

// TestStateFiles pins where a LUN's state lies, and who has one.
func TestStateFiles(t *testing.T) {
	e := &ietdExport{stateDir: "/state", conf: &ietconf.Config{Targets: []ietconf.Target{
		{LUNs: []ietconf.LUN{{Path: "/dev/alone"}, {Path: "/dev/shared"}}}, {LUNs: []ietconf.LUN{{Path: "/dev/shared"}}},
	}}}
	if got := e.stateFile("/dev/alone"); got != "/state/6519b766e8fc666975d12562f73f2d72.json" {
		t.Errorf("the state lies in %s", got)
	}
	if got := e.stateFile("/dev/shared"); got != "" {
		t.Errorf("two LUNs keep their state in %s", got)
	}
	e.stateDir = ""
	if got := e.stateFile("/dev/alone"); got != "" {
		t.Errorf("without a directory the state lies in %s", got)
	}
}

// TestStateDir: where the directory cannot be used ietd starts all the same.
func TestStateDir(t *testing.T) {
	conf := writeConf(t, "Target iqn.2026-11.io.example:disk")
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	if got := makeStateDir(filepath.Join(conf, "state"), logger); got != "" {
		t.Errorf("%s is no directory", got)
	}
	if log := logger.GetSink().(ktesting.Underlier).GetBuffer().String(); strings.Count(log, "--state-dir") != 1 {
		t.Errorf("the log says %q", log)
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	if got := makeStateDir(dir, logger); got != dir {
		t.Errorf("makeStateDir returned %q", got)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
}

// NOPInterval and NOPTimeout are ietd's: not given, or 0, they are off.
func TestSeconds(t *testing.T) {
	for value, want := range map[string]time.Duration{"": -1, "0": -1, "90": 90 * time.Second} {
		target := ietconf.Target{Parameters: map[string]string{}}
		if value != "" {
			target.Parameters["NOPInterval"] = value
		}
		if got := seconds(target, "NOPInterval"); got != want {
			t.Errorf("NOPInterval %s: %v", value, got)
		}
	}
}

func TestUnapplied(t *testing.T) {
	target := ietconf.Target{Parameters: map[string]string{"NOPTimeout": "5", "NOPInterval": "5", "Wthreads": "8", "InitialR2T": "Yes"}}
	if diff := cmp.Diff([]string{"InitialR2T", "Wthreads"}, unapplied(target)); diff != "" {
		t.Error(diff)
	}
}
