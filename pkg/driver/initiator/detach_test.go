package initiator

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func (f *fakeHost) traces() (n int) {
	sessions, _ := sysfs{root: filepath.Join(f.dir, "sys")}.sessions(testTarget)
	if _, err := os.Stat(filepath.Join(f.etc, "nodes", testTarget)); err == nil {
		n++
	}
	return n + len(sessions)
}

func TestDetach(t *testing.T) {
	f := newFakeHost(t)
	i := f.initiator()
	if _, err := i.Attach(t.Context(), loginAt(portal(t))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := i.Detach(t.Context(), testTarget); err != nil || f.traces() != 0 {
			t.Errorf("left %d, %v", f.traces(), err)
		}
	}
	if len(f.flushed) != 1 || filepath.Base(f.flushed[0]) != "sda" {
		t.Errorf("flushed %q", f.flushed)
	}
}

func TestDetachLeavesOthersAlone(t *testing.T) {
	f := newFakeHost(t)
	f.addSession(testTarget+"0", testInitiator, "x", loggedIn)
	if err := f.initiator().Detach(t.Context(), testTarget); err != nil {
		t.Error(err)
	}
	if len(f.called("--logout")) != 0 {
		t.Error("somebody was logged out")
	}
}

// Deleting a disk of a lost session would wait for its target.
func TestDetachOfALostSession(t *testing.T) {
	f := newFakeHost(t)
	f.addSession(testTarget, testInitiator, "x", "FAILED")
	lun := filepath.Join(f.dir, "sys/class/iscsi_session/session1/device/target0:0:0/0:0:0:0/delete")
	f.fail = func(args []string) error {
		if b, err := os.ReadFile(lun); args[len(args)-1] == "--logout" && (err != nil || len(b) > 0) {
			t.Errorf("the disk was deleted before logout: %q, %v", b, err)
		}
		return nil
	}
	if err := f.initiator().Detach(t.Context(), testTarget); err != nil || f.traces() != 0 || f.flushed != nil {
		t.Errorf("left %d, flushed %q, %v", f.traces(), f.flushed, err)
	}
}

func TestDetachDeletesTheDiskBeforeLogout(t *testing.T) {
	f := newFakeHost(t)
	f.addSession(testTarget, testInitiator, "x", loggedIn)
	session := "sys/class/iscsi_session/session1"
	f.fail = func(args []string) error {
		if args[len(args)-1] == "--logout" && f.attribute(session+"/device/target0:0:0/0:0:0:0/delete") != "1" {
			t.Error("logout before the disk was deleted")
		}
		if args[len(args)-1] == "--logout" && f.attribute(session+"/recovery_tmo") != detachRecovery {
			t.Error("a target lost now would be waited for")
		}
		return nil
	}
	if err := f.initiator().Detach(t.Context(), testTarget); err != nil {
		t.Error(err)
	}
}

func TestDetachProvesIt(t *testing.T) {
	f := newFakeHost(t)
	f.addSession(testTarget, testInitiator, "x", loggedIn)
	f.stayUp = true
	ctx, cancel := context.WithCancel(t.Context())
	f.fail = func(args []string) error {
		if args[len(args)-1] == "--logout" && args[2] == "session" {
			cancel() // in place of the wait for a kernel that does not end it
		}
		return nil
	}
	if err := f.initiator().Detach(ctx, testTarget); !errors.Is(err, ErrLeftOver) {
		t.Errorf("got %v", err)
	}
}

// iscsiadm cannot delete a record that it cannot read.
func TestDetachRemovesAnUnreadableRecord(t *testing.T) {
	f := newFakeHost(t)
	path := filepath.Join(f.etc, "nodes", testTarget)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "192.0.2.7,3260"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.initiator().Detach(t.Context(), testTarget); err != nil || f.traces() != 0 {
		t.Errorf("left %d, %v", f.traces(), err)
	}
}

func TestDetachWithoutISCSID(t *testing.T) {
	f := newFakeHost(t)
	if err := os.RemoveAll(filepath.Join(f.dir, "proc/4711")); err != nil {
		t.Fatal(err)
	}
	if err := f.initiator().Detach(t.Context(), testTarget); err != nil {
		t.Errorf("nothing was there, and yet: %v", err)
	}
	f.addSession(testTarget, testInitiator, "x", "FAILED")
	if err := f.initiator().Detach(t.Context(), testTarget); !errors.Is(err, ErrHost) {
		t.Errorf("got %v", err)
	}
}

func TestDetachRemovesTheMapFirst(t *testing.T) {
	f := newFakeHost(t)
	f.process("4712", "multipathd", "mnt:[2]", "net:[1]")
	f.addSession(testTarget, testInitiator, "x", loggedIn)
	f.hold("sda", "dm-0", "mpath-3123456789abcdef")
	f.addBlock("dm-0", 253, 0, 1<<30)
	if err := f.initiator().Detach(t.Context(), testTarget); err != nil {
		t.Fatal(err)
	}
	if f.called("multipath", "-f", "3123456789abcdef") == nil {
		t.Errorf("the map stays: %q", f.calls)
	}
}

func TestFailEndsOnlyLostSessions(t *testing.T) {
	f := newFakeHost(t)
	f.addSession(testTarget, testInitiator, "x", loggedIn)
	if lost, err := f.initiator().Fail(t.Context(), testTarget); lost || err != nil {
		t.Errorf("got %v, %v", lost, err)
	}
	id := f.addSession(testTarget, testInitiator, "x", "FAILED")
	if lost, err := f.initiator().Fail(t.Context(), testTarget); !lost || err != nil {
		t.Errorf("got %v, %v", lost, err)
	}
	if len(f.called("--logout")) != 1 || f.called("--logout", "-r", id) == nil {
		t.Errorf("got %q", f.called("--logout"))
	}
}

func TestNoSysfsIsNoSession(t *testing.T) {
	f := newFakeHost(t)
	if err := os.RemoveAll(filepath.Join(f.dir, "sys/class/iscsi_session")); err != nil {
		t.Fatal(err)
	}
	if disks, err := f.initiator().Disks(testTarget); err != nil || disks != nil {
		t.Errorf("got %v, %v", disks, err)
	}
	if _, err := os.Stat(filepath.Join(f.dir, "sys/class/iscsi_session")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
