package initiator

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func loginAt(portals ...string) Login {
	l := testLogin()
	l.Portals = portals
	return l
}

func TestAttach(t *testing.T) {
	f := newFakeHost(t)
	i, l := f.initiator(), loginAt(portal(t))
	disk, err := i.Attach(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	if disk.Path != filepath.Join(f.dir, "dev/sda") || disk.Number != "8:0" || disk.SizeBytes != 1<<30 || !disk.Live {
		t.Errorf("got %+v", disk)
	}
	record := filepath.Join(f.etc, "nodes", testTarget, strings.ReplaceAll(l.Portals[0], ":", ","))
	info, err := os.Stat(record)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("record: %v, %v", info, err)
	}
	for _, line := range []string{"node.session.auth.password = " + l.Secret, "node.startup = manual", "iface.initiatorname = " + testInitiator} {
		if !strings.Contains(string(read(t, record)), "\n"+line+"\n") {
			t.Errorf("the record lacks %s", line)
		}
	}
	for _, call := range f.calls {
		if strings.Contains(strings.Join(call, " "), "PLANTED") {
			t.Errorf("a secret on a command line: %q", call)
		}
		if call[0] != "nsenter" || !strings.HasSuffix(call[1], "/ns/mnt") || call[2] != "--" {
			t.Errorf("not in iscsid's mount namespace: %q", call)
		}
	}
}

// The kernel shows a disk a moment before it lets anybody open it.
func TestAttachWaitsUntilTheDiskOpens(t *testing.T) {
	f := newFakeHost(t)
	tries := 0
	f.open = func(path string) error {
		if tries++; tries < 4 {
			return &os.PathError{Op: "open", Path: path, Err: unix.ENXIO}
		}
		return nil
	}
	disk, err := f.initiator().Attach(t.Context(), loginAt(portal(t)))
	if err != nil || tries != 4 || disk.Path != filepath.Join(f.dir, "dev/sda") {
		t.Errorf("%+v after %d tries: %v", disk, tries, err)
	}
}

// What is wrong with a disk otherwise is not for Attach to wait for, and a disk
// that never opens is told.
func TestAttachOfADiskThatDoesNotOpen(t *testing.T) {
	for _, c := range []struct{ open, want error }{{unix.EIO, nil}, {unix.ENXIO, unix.ENXIO}} {
		f := newFakeHost(t)
		ctx, cancel := context.WithCancel(t.Context())
		tries := 0
		f.open = func(string) error {
			if tries++; tries == 3 {
				cancel()
			}
			return c.open
		}
		if _, err := f.initiator().Attach(ctx, loginAt(portal(t))); !errors.Is(err, c.want) {
			t.Errorf("opening is %v: %v", c.open, err)
		}
		cancel()
	}
}

func TestAttachAgainGoesOn(t *testing.T) {
	f := newFakeHost(t)
	i, l := f.initiator(), loginAt(portal(t))
	if _, err := i.Attach(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	f.fail = func(args []string) error {
		if strings.Contains(strings.Join(args, " "), "--login") {
			return exit(exitSessionExists)
		}
		return nil
	}
	if _, err := i.Attach(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	if n := len(f.called("iface", "new")); n != 1 {
		t.Errorf("the iface was made %d times", n)
	}
}

func TestAttachRefusesASessionOfAnotherStage(t *testing.T) {
	for name, s := range map[string][2]string{
		"another nonce": {testInitiator, "u1+ffff"}, "another initiator": {"iqn.2004-10.org.other:host", testLogin().Username},
	} {
		f := newFakeHost(t)
		f.addSession(testTarget, s[0], s[1], loggedIn)
		f.fail = func(args []string) error {
			if args[len(args)-1] == "--login" {
				return exit(exitSessionExists)
			}
			return nil
		}
		if _, err := f.initiator().Attach(t.Context(), loginAt(portal(t))); !errors.Is(err, ErrWrongDevice) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDiskChecks(t *testing.T) {
	for name, c := range map[string]struct {
		naa   string
		spoil func(*fakeHost)
		want  error
	}{
		"another NAA":    {"3fffffffffffffff", nil, ErrWrongDevice},
		"128-bit NAA":    {"6123456789abcdef3123456789abcdef", nil, ErrWrongDevice},
		"foreign holder": {"", func(f *fakeHost) { f.hold("sda", "dm-3", "LVM-abc") }, ErrWrongDevice},
		"md holder":      {"", func(f *fakeHost) { f.mkdir("sys/class/block/sda/holders/md0") }, ErrWrongDevice},
		"no device node": {"", func(f *fakeHost) { f.remove("dev/sda") }, ErrNotAttached},
		"stale device node": {"", func(f *fakeHost) {
			f.write("sys/class/block/sda/dev", "8:160\n")
		}, ErrWrongDevice},
		"cut page 83h": {"", func(f *fakeHost) {
			f.write("sys/class/iscsi_session/session1/device/target0:0:0/0:0:0:0/vpd_pg83", "\x00\x83\x00\xff\x01\x03\x00\x08")
		}, ErrWrongDevice},
	} {
		f := newFakeHost(t)
		f.naa = or(c.naa, f.naa)
		v := testLogin().Volume
		f.addSession(testTarget, testInitiator, v.Username, loggedIn)
		if c.spoil != nil {
			c.spoil(f)
		}
		if _, err := f.initiator().Disk(v); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAttachOfASmallerDisk(t *testing.T) {
	f := newFakeHost(t)
	f.size = 1<<30 - 512
	if _, err := f.initiator().Attach(t.Context(), loginAt(portal(t))); !errors.Is(err, ErrTooSmall) {
		t.Errorf("got %v", err)
	}
}

func TestAttachWithOneDeadPortal(t *testing.T) {
	f := newFakeHost(t)
	if _, err := f.initiator().Attach(t.Context(), loginAt(deadPortal(t), portal(t))); err != nil {
		t.Fatal(err)
	}
	if n := len(f.called("--login")); n != 1 {
		t.Errorf("%d logins", n)
	}
}

func TestAttachErrors(t *testing.T) {
	live := portal(t)
	login := func(code int) func([]string) error {
		return func(args []string) error {
			if args[len(args)-1] == "--login" {
				return exit(code)
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		portal string
		fail   func([]string) error
		want   error
	}{
		"refused":       {live, login(exitAuth), ErrRefused},
		"login failure": {live, login(exitLogin), ErrRefused},
		"timeout":       {live, login(exitTimeout), ErrUnreachable},
		"transport":     {live, login(exitTransport), ErrUnreachable},
		"dead portal":   {deadPortal(t), nil, ErrUnreachable},
		"iscsiadm gone": {live, func([]string) error { return child.ErrNoProgram }, ErrHost},
	} {
		f := newFakeHost(t)
		f.fail = c.fail
		_, err := f.initiator().Attach(t.Context(), loginAt(c.portal))
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAttachOverMultipath(t *testing.T) {
	f := newFakeHost(t)
	f.process("4712", "multipathd", "mnt:[2]", "net:[1]")
	l := loginAt(portal(t), portal(t))
	f.hold("sda", "dm-0", "mpath-3123456789abcdef")
	f.hold("sdb", "dm-0", "mpath-3123456789abcdef")
	f.addBlock("dm-0", 253, 0, 1<<30)
	disk, err := f.initiator().Attach(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Base(disk.Path) != "dm-0" || disk.Number != "253:0" {
		t.Errorf("got %+v", disk)
	}
	for _, p := range l.Portals {
		record := filepath.Join(f.etc, "nodes", testTarget, strings.ReplaceAll(p, ":", ","))
		// What a path that never came into the map would have.
		if !strings.Contains(string(read(t, record)), "replacement_timeout = 600\n") {
			t.Errorf("%s has another replacement_timeout than a single path wants", p)
		}
	}
	for _, id := range []string{"1", "2"} {
		if got := f.attribute("sys/class/iscsi_session/session" + id + "/recovery_tmo"); got != "5" {
			t.Errorf("session %s under a map waits %s s for a lost path", id, got)
		}
	}
}

// Without a map over them, two paths are two disks with one content.
func TestAttachOfSeveralPortalsWithoutMultipathd(t *testing.T) {
	f := newFakeHost(t)
	refused := portal(t)
	f.fail = func(args []string) error {
		if slices.Contains(args, "--login") && slices.Contains(args, refused) {
			return exit(exitAuth)
		}
		return nil
	}
	i := f.initiator()
	disk, err := i.Attach(t.Context(), loginAt(refused, portal(t), portal(t)))
	if err != nil || filepath.Base(disk.Path) != "sda" {
		t.Fatalf("got %+v, %v", disk, err)
	}
	if n := len(f.called("--login")); n != 2 {
		t.Errorf("%d logins", n)
	}
	f.checkOnePath(i)
}

// multipathd runs, and is not to take our disks.
func TestAttachWhereNoMapComes(t *testing.T) {
	f := newFakeHost(t)
	f.process("4712", "multipathd", "mnt:[2]", "net:[1]")
	i := f.initiator()
	i.mapTimeout = time.Millisecond
	disk, err := i.Attach(t.Context(), loginAt(portal(t), portal(t)))
	if err != nil || filepath.Base(disk.Path) != "sda" {
		t.Fatalf("got %+v, %v", disk, err)
	}
	f.checkOnePath(i)
	if !slices.Contains(f.deleted, "1:0:0:0") {
		t.Errorf("the other path's disk outlives its session; deleted: %q", f.deleted)
	}
}

// checkOnePath fails the test unless one session is left, with the patience of
// a volume that has one path.
func (f *fakeHost) checkOnePath(i *Initiator) {
	f.t.Helper()
	sessions, err := i.sysfs.sessions(testTarget)
	if err != nil || len(sessions) != 1 {
		f.t.Fatalf("sessions %v, %v", sessions, err)
	}
	if got := f.attribute("sys/class/iscsi_session/session" + sessions[0].id + "/recovery_tmo"); got != "9" {
		f.t.Errorf("the only path is waited for %s s", got)
	}
}

// A map that has one path of two would lose the other's writes.
func TestDiskWaitsForTheWholeMap(t *testing.T) {
	f := newFakeHost(t)
	v := testLogin().Volume
	f.addSession(testTarget, testInitiator, v.Username, loggedIn)
	f.addSession(testTarget, testInitiator, v.Username, loggedIn)
	f.hold("sda", "dm-0", "mpath-3123456789abcdef")
	f.addBlock("dm-0", 253, 0, 1<<30)
	if _, err := f.initiator().Disk(v); !errors.Is(err, ErrNotAttached) {
		t.Errorf("got %v", err)
	}
}

func TestDiskOfALostSession(t *testing.T) {
	f := newFakeHost(t)
	v := testLogin().Volume
	id := f.addSession(testTarget, testInitiator, v.Username, "FAILED")
	if _, err := f.initiator().Disk(v); !errors.Is(err, ErrNotAttached) || !errors.Is(err, ErrRecovering) {
		t.Errorf("got %v", err)
	}
	f.write("sys/class/iscsi_session/session"+id+"/state", "FREE\n")
	if _, err := f.initiator().Disk(v); !errors.Is(err, ErrNotAttached) || errors.Is(err, ErrRecovering) {
		t.Errorf("given up by the kernel: got %v", err)
	}
	disks, err := f.initiator().Disks(testTarget)
	if err != nil || len(disks) != 1 || disks[0].Live || disks[0].Number != "8:0" {
		t.Errorf("got %+v, %v", disks, err)
	}
}

func TestRescan(t *testing.T) {
	f := newFakeHost(t)
	v := testLogin().Volume
	f.addSession(testTarget, testInitiator, v.Username, loggedIn)
	f.addSession("iqn.2004-10.org.other:disk", testInitiator, "x", loggedIn)
	if _, err := f.initiator().Rescan(t.Context(), v, 2<<30); !errors.Is(err, ErrTooSmall) {
		t.Errorf("got %v", err)
	}
	f.write("sys/class/block/sda/size", "4194304\n")
	disk, err := f.initiator().Rescan(t.Context(), v, 2<<30)
	if err != nil || disk.SizeBytes != 2<<30 {
		t.Errorf("got %+v, %v", disk, err)
	}
	if f.attribute("sys/class/iscsi_session/session1/device/target0:0:0/0:0:0:0/rescan") != "1" {
		t.Error("our disk was not rescanned")
	}
	if f.attribute("sys/class/iscsi_session/session2/device/target1:0:0/1:0:0:0/rescan") != "" {
		t.Error("somebody else's disk was rescanned")
	}
}

// hold makes a device-mapper device hold a disk.
func (f *fakeHost) hold(disk, dm, uuid string) {
	f.mkdir("sys/class/block", disk, "holders", dm)
	f.mkdir("sys/class/block", dm, "dm")
	f.write("sys/class/block/"+dm+"/dm/uuid", uuid+"\n")
	f.write("sys/class/block/"+dm+"/dm/name", strings.TrimPrefix(uuid, "mpath-")+"\n")
}
