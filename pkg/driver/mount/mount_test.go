package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fakeTable is a mount table that fake programs change.
type fakeTable struct {
	t     *testing.T
	path  string
	lines []string
}

func newFakeTable(t *testing.T) (*fakeTable, *Mounter, *fakeRunner) {
	t.Helper()
	f := &fakeTable{t: t, path: filepath.Join(t.TempDir(), "mountinfo")}
	f.add("/", "8:99", "/", "ext4", "rw", "rw")
	run := &fakeRunner{}
	m := New(run, quiet())
	m.mountinfo = f.path
	m.mount = func(string, string, string, uintptr, string) error { return nil }
	return f, m, run
}

func (f *fakeTable) add(path, number, root, fsType, options, super string) {
	id := 20 + len(f.lines)
	path = strings.ReplaceAll(path, " ", `\040`)
	f.lines = append(f.lines, fmt.Sprintf("%d 1 %s %s %s %s shared:1 - %s /dev/x %s", id, number, root, path, options, fsType, super))
	f.save()
}

// drop removes the last mount at a path.
func (f *fakeTable) drop(path string) bool {
	for i, line := range slices.Backward(f.lines) {
		if strings.Fields(line)[4] == path {
			f.lines = slices.Delete(f.lines, i, i+1)
			f.save()
			return true
		}
	}
	return false
}

func (f *fakeTable) save() {
	if err := os.WriteFile(f.path, []byte(strings.Join(f.lines, "\n")+"\n"), 0o600); err != nil {
		f.t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	f, m, _ := newFakeTable(t)
	f.add(at("good"), "8:0", "/", "ext4", "rw,relatime", "rw")
	f.add(at("ro"), "8:0", "/", "ext4", "ro,relatime", "rw")
	f.add(at("ro-super"), "8:0", "/", "ext4", "rw,relatime", "ro")
	f.add(at("twice"), "8:0", "/", "ext4", "rw", "rw")
	f.add(at("twice"), "8:0", "/", "ext4", "rw", "rw")
	f.add(at("with space"), "8:0", "/", "ext4", "rw", "rw")
	for _, c := range []struct {
		path, number string
		readOnly, ok bool
	}{
		{"good", "8:0", false, true}, {"good", "8:0", true, false}, {"good", "8:16", false, false},
		{"ro", "8:0", true, true}, {"ro", "8:0", false, false}, {"ro-super", "8:0", false, false},
		{"twice", "8:0", false, false}, {"nothing", "8:0", false, false}, {"with space", "8:0", false, true},
	} {
		if err := m.Verify(at(c.path), c.number, c.readOnly); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrWrongMount) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := m.Verify("relative", "8:0", false); err == nil {
		t.Error("a relative path was taken")
	}
}

// mount(8) that says yes and does nothing would send a pod's writes to the
// node's own disk.
func TestMountThatDoesNothing(t *testing.T) {
	_, m, _ := newFakeTable(t)
	path := filepath.Join(t.TempDir(), "x")
	if err := m.Mount(t.Context(), "/dev/sda", "8:0", path, "ext4", nil, false); !errors.Is(err, ErrWrongMount) {
		t.Errorf("mount: %v", err)
	}
	if err := m.Bind(t.Context(), path, "8:0", path+"2", nil, false); !errors.Is(err, ErrWrongMount) {
		t.Errorf("bind: %v", err)
	}
	if err := m.BindDevice(t.Context(), "/dev/null", "8:0", path+"3"); !errors.Is(err, ErrWrongMount) {
		t.Errorf("bind device: %v", err)
	}
}

func TestMountCommands(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		fsType   string
		flags    []string
		readOnly bool
		want     string
	}{
		"plain": {"ext4", nil, false, "mount -t ext4 -- /dev/sda P"},
		"flags": {"ext4", []string{"noatime", "commit=5"}, false, "mount -t ext4 -o noatime,commit=5 -- /dev/sda P"},
		"xfs":   {"xfs", []string{"noatime"}, true, "mount -t xfs -o nouuid,noatime,ro -- /dev/sda P"},
	} {
		f, m, run := newFakeTable(t)
		path := filepath.Join(dir, name)
		run.answer = func([]string) (string, error) {
			f.add(path, "8:0", "/", c.fsType, map[bool]string{true: "ro", false: "rw"}[c.readOnly], "rw")
			return "", nil
		}
		if err := m.Mount(t.Context(), "/dev/sda", "8:0", path, c.fsType, c.flags, c.readOnly); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.ReplaceAll(run.calls[0], path, "P"); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestBindReadOnly(t *testing.T) {
	f, m, _ := newFakeTable(t)
	path := filepath.Join(t.TempDir(), "target")
	var calls []string
	m.mount = func(source, target, fsType string, flags uintptr, data string) error {
		calls = append(calls, fmt.Sprintf("%s %s %#x", source, target, flags))
		f.drop(path)
		f.add(path, "8:0", "/", "ext4", map[bool]string{true: "ro", false: "rw"}[flags&unix.MS_RDONLY != 0], "rw")
		return nil
	}
	if err := m.Bind(t.Context(), "/staging", "8:0", path, []string{"noatime", "data=journal"}, true); err != nil {
		t.Error(err)
	}
	want := []string{
		fmt.Sprintf("/staging %s %#x", path, unix.MS_BIND),
		fmt.Sprintf(" %s %#x", path, unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOATIME|unix.MS_RDONLY),
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Error(diff)
	}
}

// Half a read-only bind mount is a writable one.
func TestBindReadOnlyThatFails(t *testing.T) {
	f, m, run := newFakeTable(t)
	path := filepath.Join(t.TempDir(), "target")
	run.answer = func([]string) (string, error) { f.drop(path); return "", nil } // umount
	m.mount = func(_, _, _ string, flags uintptr, _ string) error {
		if flags&unix.MS_REMOUNT != 0 {
			return unix.EPERM
		}
		f.add(path, "8:0", "/", "ext4", "rw", "rw")
		return nil
	}
	if err := m.Bind(t.Context(), "/staging", "8:0", path, nil, true); !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
	if left, err := m.At(path); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// The real system calls, by this test in a mount namespace of its own.
func TestBindForReal(t *testing.T) {
	const inside = "CSI_IETD_TEST_BIND"
	if os.Getenv(inside) == "" {
		again := exec.Command(os.Args[0], "-test.run=^TestBindForReal$")
		again.Env = append(os.Environ(), inside+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	m := New(nil, quiet())
	source, path := t.TempDir(), filepath.Join(t.TempDir(), "path")
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		t.Fatal(err)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if err := m.Bind(t.Context(), source, number, path, []string{"nosuid", "noexec"}, true); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	if want := int64(unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NOEXEC); fs.Flags&want != want {
		t.Errorf("mount flags %#x", fs.Flags)
	}
	if err := os.WriteFile(filepath.Join(path, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v", err)
	}
	if err := m.RemoveTarget(t.Context(), path); err != nil {
		t.Error(err)
	}
}

func TestUnmountAllLayers(t *testing.T) {
	f, m, run := newFakeTable(t)
	path := filepath.Join(t.TempDir(), "target")
	for range 3 {
		f.add(path, "8:0", "/", "ext4", "rw", "rw")
	}
	run.answer = func(args []string) (string, error) { f.drop(args[2]); return "", nil }
	for range 2 {
		if err := m.Unmount(t.Context(), path); err != nil || len(run.calls) != 3 {
			t.Errorf("%v after %q", err, run.calls)
		}
	}
}

func TestUnmountThatDoesNothing(t *testing.T) {
	f, m, _ := newFakeTable(t)
	path := filepath.Join(t.TempDir(), "target")
	f.add(path, "8:0", "/", "ext4", "rw", "rw")
	if err := m.Unmount(t.Context(), path); !errors.Is(err, ErrWrongMount) {
		t.Errorf("got %v", err)
	}
}

func TestAtFollowsLinksAboveTheMountPoint(t *testing.T) {
	f, m, _ := newFakeTable(t)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	f.add(filepath.Join(dir, "real/target"), "8:0", "/", "ext4", "rw", "rw")
	if got, err := m.At(filepath.Join(dir, "link/target")); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := m.At(filepath.Join(dir, "missing/target")); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestOfFindsDeviceNodes(t *testing.T) {
	f, m, _ := newFakeTable(t)
	f.add("/a", "8:0", "/", "ext4", "rw", "rw")
	f.add("/b", "0:6", "/sda", "devtmpfs", "rw", "rw")
	f.add("/c", "0:6", "/sdb", "devtmpfs", "rw", "rw")
	f.add("/d", "8:16", "/sda", "ext4", "rw", "rw")
	entries, err := m.Of("8:0", "/dev/sda")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, e.Path)
	}
	if diff := cmp.Diff([]string{"/a", "/b"}, paths); diff != "" {
		t.Error(diff)
	}
}

func TestRemoveTargetKeepsData(t *testing.T) {
	_, m, _ := newFakeTable(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.RemoveTarget(t.Context(), dir); err == nil {
		t.Error("a directory with data in it was removed")
	}
	if err := m.RemoveTarget(t.Context(), filepath.Join(dir, "missing")); err != nil {
		t.Error(err)
	}
}

func TestBindDeviceRefusesALink(t *testing.T) {
	_, m, _ := newFakeTable(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	if err := m.BindDevice(t.Context(), "/dev/sda", "8:0", link); err == nil {
		t.Error("a symbolic link was taken for a target")
	}
}

func TestMountRefusesALink(t *testing.T) {
	_, m, run := newFakeTable(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"mount": m.Mount(t.Context(), "/dev/sda", "8:0", link, "ext4", nil, false),
		"bind":  m.Bind(t.Context(), "/staging", "8:0", link, nil, false),
	} {
		if !errors.Is(err, ErrUnsupported) || run.calls != nil {
			t.Errorf("%s: %v after %q", name, err, run.calls)
		}
	}
}

func TestStatsOf(t *testing.T) {
	got := statsOf(unix.Statfs_t{Bsize: 4096, Blocks: 100, Bfree: 60, Bavail: 50, Files: 20, Ffree: 15})
	want := Stats{409600, 163840, 204800, 20, 5, 15}
	if got != want {
		t.Errorf("got %+v", got)
	}
	if _, err := New(nil, quiet()).Statfs(t.Context(), t.TempDir()); err != nil {
		t.Error(err)
	}
	if _, err := New(nil, quiet()).Statfs(t.Context(), "/missing"); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}

func TestGrowCommands(t *testing.T) {
	for fsType, want := range map[string]string{"ext4": "resize2fs /dev/sda", "xfs": "xfs_growfs /m"} {
		_, m, run := newFakeTable(t)
		if err := m.Grow(t.Context(), "/dev/sda", "/m", fsType); err != nil || run.calls[0] != want {
			t.Errorf("%s: %q, %v", fsType, run.calls, err)
		}
	}
	_, m, _ := newFakeTable(t)
	if err := m.Grow(t.Context(), "/dev/sda", "/m", ""); !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
