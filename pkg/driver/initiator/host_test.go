package initiator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPreflight(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*fakeHost)
		want  string
	}{
		"fine": {func(*fakeHost) {}, ""},
		"no iscsid": {func(f *fakeHost) {
			f.remove("proc/4711")
		}, "systemctl enable --now iscsid"},
		"no iscsi_tcp": {func(f *fakeHost) {
			f.remove("sys/class/iscsi_transport")
		}, "modprobe iscsi_tcp"},
		"iscsi_tcp to load": {func(f *fakeHost) {
			f.remove("sys/class/iscsi_transport")
			f.fail = func(args []string) error {
				if args[0] == "modprobe" {
					f.mkdir("sys/class/iscsi_transport/tcp")
				}
				return nil
			}
		}, ""},
		"no iscsiadm": {func(f *fakeHost) {
			f.fail = func(args []string) error { return exit(127) }
		}, "install open-iscsi"},
	} {
		f := newFakeHost(t)
		c.spoil(f)
		err := f.initiator().Preflight(t.Context())
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (!errors.Is(err, ErrHost) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// On systemd hosts iscsid starts when it is first asked for.
func TestPreflightStartsISCSID(t *testing.T) {
	f := newFakeHost(t)
	if err := os.RemoveAll(filepath.Join(f.dir, "proc/4711")); err != nil {
		t.Fatal(err)
	}
	f.process("1", "systemd", "mnt:[2]", "net:[1]")
	f.fail = func(args []string) error {
		if args[0] == "systemctl" {
			f.process("4711", "iscsid", "mnt:[2]", "net:[1]")
		}
		return nil
	}
	if err := f.initiator().Preflight(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHostNamespaces(t *testing.T) {
	for name, c := range map[string]struct{ mnt, net, want, root string }{
		"ours":    {"mnt:[1]", "net:[1]", "iscsiadm", "/"},
		"mount":   {"mnt:[2]", "net:[1]", "nsenter --mount=P/ns/mnt -- iscsiadm", "P/root"},
		"network": {"mnt:[1]", "net:[2]", "nsenter --net=P/ns/net -- iscsiadm", "/"},
		"both":    {"mnt:[2]", "net:[2]", "nsenter --mount=P/ns/mnt --net=P/ns/net -- iscsiadm", "P/root"},
	} {
		f := newFakeHost(t)
		proc := filepath.Join(f.dir, "proc/4711")
		if err := os.RemoveAll(proc); err != nil {
			t.Fatal(err)
		}
		f.process("4711", "iscsid", c.mnt, c.net)
		h, err := f.initiator().host(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := h.iscsiadm(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(strings.Join(f.calls[0], " "), proc, "P")
		if root := strings.ReplaceAll(h.path("/"), proc, "P"); got != c.want || root != c.root {
			t.Errorf("%s: %q at %s", name, got, root)
		}
		if h.ourNet != (c.net == "net:[1]") {
			t.Errorf("%s: our network: %v", name, h.ourNet)
		}
	}
}

func TestPortalsAreNotProbedFromAnotherNetwork(t *testing.T) {
	f := newFakeHost(t)
	dead := deadPortal(t)
	got, err := f.initiator().reachable(t.Context(), host{}, []string{dead})
	if err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLockRecords(t *testing.T) {
	f := newFakeHost(t)
	i := f.initiator()
	h, err := i.host(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := i.lockRecords(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	held := h.path(lockDir + "/lock.write")
	if _, err := os.Stat(held); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*pollInterval)
	defer cancel()
	if _, err := i.lockRecords(ctx, h); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the lock was taken twice: %v", err)
	}
	unlock()
	if _, err := os.Stat(held); !os.IsNotExist(err) {
		t.Errorf("the lock stays: %v", err)
	}
}

func TestStaleLock(t *testing.T) {
	f := newFakeHost(t)
	i := f.initiator()
	held := filepath.Join(f.mkdir("run"), "lock.write")
	young := func() {
		if err := os.WriteFile(held, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	there := func() bool { _, err := os.Stat(held); return err == nil }
	young()
	if err := i.breakStaleLock(held, time.Now()); err != nil || !there() {
		t.Errorf("a young lock was broken: %v", err)
	}
	late := time.Now().Add(2 * staleAfter)
	f.process("4800", "iscsiadm", "mnt:[2]", "net:[1]")
	f.startedAgo("4800", 3*staleAfter)
	if err := i.breakStaleLock(held, late); err != nil || !there() {
		t.Errorf("the lock of an iscsiadm that may hold it was broken: %v", err)
	}
	f.startedAgo("4800", staleAfter)
	if err := i.breakStaleLock(held, late); err != nil || there() {
		t.Errorf("a dead process's lock stays, because of a younger one that waits: %v", err)
	}
	if err := i.breakStaleLock(held, late); err != nil {
		t.Errorf("no lock: %v", err)
	}
}

// startedAgo sets a process's start time.
func (f *fakeHost) startedAgo(pid string, ago time.Duration) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		f.t.Error(err)
	}
	start := (time.Duration(up.Nano()) - ago) / (time.Second / userHZ)
	f.write("proc/"+pid+"/stat", fmt.Sprintf("%s (a) name)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 %d 20 21\n", pid, start))
}

func TestRecordFileLayouts(t *testing.T) {
	for name, c := range map[string]struct{ portal, file string }{
		"flat":        {"192.0.2.7:3260", "etc/iscsi/nodes/T/192.0.2.7,3260"},
		"tagged":      {"192.0.2.7:3260", "etc/iscsi/nodes/T/192.0.2.7,3260,1/csi-ietd"},
		"IPv6":        {"[2001:db8::7]:3260", "etc/iscsi/nodes/T/2001:db8::7,3260"},
		"var":         {"192.0.2.7:3260", "var/lib/iscsi/nodes/T/192.0.2.7,3260,1/csi-ietd"},
		"longer port": {"192.0.2.7:326", ""},
	} {
		f := newFakeHost(t)
		h := host{root: f.dir}
		if c.file == "" {
			f.mkdir("etc/iscsi/nodes/T")
			f.write("etc/iscsi/nodes/T/192.0.2.7,3260", "")
			if got, err := f.initiator().recordFile(h, "T", c.portal); err == nil {
				t.Errorf("%s: got %s", name, got)
			}
			continue
		}
		f.mkdir(filepath.Dir(c.file))
		f.write(c.file, "")
		if got, err := f.initiator().recordFile(h, "T", c.portal); err != nil || got != filepath.Join(f.dir, c.file) {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
		if db := databaseOf(filepath.Join(f.dir, c.file)); filepath.Base(db) != "iscsi" {
			t.Errorf("%s: database %s", name, db)
		}
	}
}

// A half-made record of an earlier crash has secrets in it.
func TestRewriteSweepsHalfMadeRecords(t *testing.T) {
	f := newFakeHost(t)
	leftover := filepath.Join(f.etc, ".csi-ietd-123")
	if err := os.WriteFile(leftover, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.initiator().Attach(t.Context(), loginAt(portal(t))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(leftover); !os.IsNotExist(err) {
		t.Errorf("%s stays: %v", leftover, err)
	}
}
