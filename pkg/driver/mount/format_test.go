package mount

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRunner answers for programs.
type fakeRunner struct {
	calls  []string
	answer func(args []string) (string, error)
}

func (f *fakeRunner) Run(ctx context.Context, name string, args ...string) (string, error) {
	args = append([]string{name}, args...)
	f.calls = append(f.calls, strings.Join(args, " "))
	if f.answer == nil {
		return "", nil
	}
	return f.answer(args)
}

func exit(name string, code int) error { return &child.ExitError{Name: name, Code: code} }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// disk makes a file that stands for a device, with data at an offset.
func disk(t *testing.T, size int64, data string, offset int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(data), offset); err != nil {
		t.Fatal(err)
	}
	return path
}

const diskSize = 64 << 20

func TestFilesystem(t *testing.T) {
	blank := disk(t, diskSize, "", 0)
	nothing := func([]string) (string, error) { return "", exit("blkid", 2) }
	for name, c := range map[string]struct {
		device string
		blkid  func([]string) (string, error)
		want   string
		err    error
	}{
		"empty":           {blank, nothing, "", nil},
		"ext4":            {blank, says("TYPE=ext4"), "ext4", nil},
		"xfs":             {blank, says("UUID=x\nTYPE=xfs\nUSAGE=filesystem"), "xfs", nil},
		"another type":    {blank, says("TYPE=btrfs"), "", ErrNotEmpty},
		"LVM":             {blank, says("TYPE=LVM2_member"), "", ErrNotEmpty},
		"LUKS":            {blank, says("TYPE=crypto_LUKS"), "", ErrNotEmpty},
		"partitions":      {blank, says("PTTYPE=gpt"), "", ErrNotEmpty},
		"no TYPE":         {blank, says("DEVNAME=/dev/sda"), "", ErrNotEmpty},
		"no output":       {blank, says(""), "", ErrNotEmpty},
		"ambivalent":      {blank, func([]string) (string, error) { return "", exit("blkid", 8) }, "", ErrNotEmpty},
		"data first":      {disk(t, diskSize, "x", 0), nothing, "", ErrNotEmpty},
		"data in 1st MiB": {disk(t, diskSize, "x", edge-1), nothing, "", ErrNotEmpty},
		"data last":       {disk(t, diskSize, "x", diskSize-1), nothing, "", ErrNotEmpty},
		"data in last":    {disk(t, diskSize, "x", diskSize-edge), nothing, "", ErrNotEmpty},
		"small with data": {disk(t, edge/2, "x", edge/2-1), nothing, "", ErrNotEmpty},
		"no size":         {disk(t, 0, "", 0), nothing, "", ErrNotEmpty},
	} {
		m := New(&fakeRunner{answer: c.blkid}, quiet())
		got, err := m.Filesystem(t.Context(), c.device)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func says(out string) func([]string) (string, error) {
	return func([]string) (string, error) { return out, nil }
}

// A probe that fails proves nothing: never "empty".
func TestFilesystemProbeErrors(t *testing.T) {
	blank := disk(t, diskSize, "", 0)
	missing := filepath.Join(t.TempDir(), "missing")
	for name, c := range map[string]struct {
		device string
		err    error
	}{
		"exit 4": {blank, exit("blkid", 4)}, "killed": {blank, exit("blkid", -1)},
		"deadline": {blank, context.DeadlineExceeded}, "no blkid": {blank, child.ErrNoProgram},
		"exit 2 of a missing device": {missing, exit("blkid", 2)},
		"exit 2 of a directory":      {t.TempDir(), exit("blkid", 2)},
	} {
		m := New(&fakeRunner{answer: func([]string) (string, error) { return "", c.err }}, quiet())
		if got, err := m.Filesystem(t.Context(), c.device); err == nil || got != "" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

// The real tools on a file: what mkfs makes is found, and mkfs is not told to
// overwrite.
func TestFormatForReal(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs"} {
		m := New(nil, quiet())
		device := disk(t, 512<<20, "", 0)
		if got, err := m.Filesystem(t.Context(), device); got != "" || err != nil {
			t.Errorf("%s: fresh: %q, %v", fsType, got, err)
		}
		if err := m.Format(t.Context(), device, fsType, nil); err != nil {
			t.Error(err)
		}
		if got, err := m.Filesystem(t.Context(), device); got != fsType || err != nil {
			t.Errorf("%s: formatted: %q, %v", fsType, got, err)
		}
		if err := m.Check(t.Context(), device, fsType); err != nil {
			t.Error(err)
		}
		if err := m.Wipe(t.Context(), device); err != nil {
			t.Error(err)
		}
		if got, err := m.Filesystem(t.Context(), device); got != "" || err != nil {
			t.Errorf("%s: wiped: %q, %v", fsType, got, err)
		}
	}
}

func TestXFSRefusesToOverwriteByItself(t *testing.T) {
	m := New(nil, quiet())
	device := disk(t, 512<<20, "", 0)
	if err := m.Format(t.Context(), device, "ext4", nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Format(t.Context(), device, "xfs", nil); err == nil {
		t.Error("mkfs.xfs overwrote ext4")
	}
	if got, err := m.Filesystem(t.Context(), device); got != "ext4" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFormatProvesIt(t *testing.T) {
	run := &fakeRunner{}
	if err := New(run, quiet()).Format(t.Context(), disk(t, diskSize, "", 0), "ext4", nil); err == nil {
		t.Error("mkfs that made nothing was taken for success")
	}
	if err := New(run, quiet()).Format(t.Context(), "/dev/null", "vfat", nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("vfat: %v", err)
	}
}

func TestCheckExitCodes(t *testing.T) {
	for code, want := range map[int]error{0: nil, 1: nil, 2: nil, 3: nil, 4: ErrDamaged, 6: nil, 8: nil, 12: nil} {
		run := &fakeRunner{answer: func([]string) (string, error) {
			if code == 0 {
				return "", nil
			}
			return "", exit("fsck.ext4", code)
		}}
		err := New(run, quiet()).Check(t.Context(), "/dev/sda", "ext4")
		if fine := code < 4; fine != (err == nil) || want != nil && !errors.Is(err, want) {
			t.Errorf("exit %d: %v", code, err)
		}
	}
	run := &fakeRunner{}
	if err := New(run, quiet()).Check(t.Context(), "/dev/sda", "xfs"); err != nil || run.calls != nil {
		t.Errorf("xfs: %v, %q", err, run.calls)
	}
}

func TestReadProbe(t *testing.T) {
	m := New(nil, quiet())
	if err := m.ReadProbe(t.Context(), disk(t, diskSize, "", 0)); err != nil {
		t.Error(err)
	}
	if err := m.ReadProbe(t.Context(), filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing device takes reads")
	}
	if err := m.ReadProbe(t.Context(), disk(t, 0, "", 0)); err == nil {
		t.Error("an empty device takes reads")
	}
}

func TestUnusedOfADeadDevice(t *testing.T) {
	if err := New(nil, quiet()).Unused(t.Context(), filepath.Join(t.TempDir(), "gone")); err != nil {
		t.Error(err)
	}
}

func TestCheckFlags(t *testing.T) {
	for _, good := range [][]string{nil, {"noatime"}, {"data=journal", "commit=5"}, {"logbufs=8", "dirsync", "nodev"}} {
		if err := CheckFlags(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "ro", "rw", "bind", "remount", "loop=/dev/loop0", "rshared", "journal_path=/dev/sdb", "noload",
		"journal_dev=0x801", "logdev=/dev/sdb", "rtdev=/dev/sdb", "X-mount.subdir=a", "X-mount.mkdir",
		"a,b", "noatime,suid", "a b", "-o", "x\ny", `context="x"`, strings.Repeat("a", 257), "\x00",
	} {
		if err := CheckFlags([]string{"noatime", bad}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCheckFilesystem(t *testing.T) {
	for fsType, ok := range map[string]bool{"": true, "ext4": true, "xfs": true, "ext3": false, "btrfs": false, "../ext4": false} {
		if err := CheckFilesystem(fsType); (err == nil) != ok {
			t.Errorf("%q: %v", fsType, err)
		}
	}
}

func TestTools(t *testing.T) {
	if err := CheckTools(); err != nil {
		t.Error(err)
	}
	for fsType, f := range filesystems {
		if !slices.Contains(Tools(), f.mkfs[0]) || f.fsck != nil && !slices.Contains(Tools(), f.fsck[0]) {
			t.Errorf("the tools of %s are not in the list", fsType)
		}
	}
}
