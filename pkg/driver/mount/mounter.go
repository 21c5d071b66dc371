package mount

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/driver/child"
)

// What the package fails with; test with errors.Is.
var (
	// ErrUnsupported: a file system or mount option that is not served.
	ErrUnsupported = errors.New("not supported")
	// ErrNotEmpty: the device holds something that is no file system of
	// the wanted type; it is never formatted.
	ErrNotEmpty = errors.New("the device is not proven empty and is not formatted")
	// ErrOtherFilesystem: the device has another file system than wanted.
	ErrOtherFilesystem = errors.New("the volume has another file system")
	// ErrDamaged: fsck could not repair the file system by itself.
	ErrDamaged = errors.New("the file system is damaged")
	// ErrWrongMount: something else than promised lies at the path.
	ErrWrongMount = errors.New("something else is mounted")
	// ErrMissingProgram: a tool of the node's image is not there.
	ErrMissingProgram = errors.New("a program is missing on this node")
)

// Mounter formats, mounts, grows and measures. Its methods may be called
// concurrently; calls for one device or path must not overlap.
type Mounter struct {
	run child.Runner
	log *slog.Logger
	// mountinfo is the kernel's table of our mount namespace.
	mountinfo string
	// mount is the system call mount(2).
	mount func(source, target, fsType string, flags uintptr, data string) error
}

// New returns a Mounter; nil arguments mean this machine's programs and the
// default logger.
func New(run child.Runner, log *slog.Logger) *Mounter {
	if run == nil {
		run = child.OS{}
	}
	if log == nil {
		log = slog.Default()
	}
	return &Mounter{run: run, log: log, mountinfo: "/proc/self/mountinfo", mount: unix.Mount}
}

// filesystem is what differs between the types.
type filesystem struct {
	mkfs []string
	// options are always mounted with.
	options []string
	fsck    []string
}

// filesystems are the types that volumes can have. A fresh volume is all
// holes: discarding it would only take time. Block reservations for root make
// no sense on a volume that one application fills.
var filesystems = map[string]filesystem{
	"ext4": {
		mkfs: []string{"mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard"},
		fsck: []string{"fsck.ext4", "-p"},
	},
	"xfs": {
		mkfs: []string{"mkfs.xfs", "-q", "-K"},
		// A snapshot or clone has its origin's UUID.
		options: []string{"nouuid"},
	},
}

// DefaultFilesystem is made where none is asked for.
const DefaultFilesystem = "ext4"

// CheckFilesystem returns ErrUnsupported for a type that volumes cannot have;
// empty means the default.
func CheckFilesystem(fsType string) error {
	if _, ok := filesystems[fsType]; ok || fsType == "" {
		return nil
	}
	return fmt.Errorf("%w: file system %q: use ext4 or xfs", ErrUnsupported, fsType)
}

// Tools are the programs that this package runs for file systems.
func Tools() []string {
	return []string{"blkid", "mkfs.ext4", "fsck.ext4", "resize2fs", "mkfs.xfs", "xfs_growfs", "mount", "umount", "sync"}
}

// CheckTools returns ErrMissingProgram with what the node's image lacks.
func CheckTools() error {
	var missing []string
	for _, tool := range Tools() {
		if child.Installed(tool) != nil {
			missing = append(missing, tool)
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("%w: %s: install e2fsprogs, xfsprogs, util-linux and coreutils", ErrMissingProgram, strings.Join(missing, ", "))
}

var (
	flagPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:=/+@%-]*$`)
	// refusedFlags change what is mounted, where, or how far it is seen:
	// that is the driver's to decide. Those that name another device of the
	// node are among them, and so are the X-mount.* of mount(8).
	refusedFlags = []string{
		"bind", "rbind", "move", "remount", "loop", "offset", "sizelimit", "encryption",
		"journal_path", "journal_dev", "logdev", "rtdev",
		"shared", "rshared", "private", "rprivate", "slave", "rslave", "unbindable", "runbindable",
		"ro", "rw", "user", "users", "owner", "group", "noload", "norecovery",
	}
)

// CheckFlags returns ErrUnsupported for a mount option that could not be given
// to mount(8) as it stands, or that is not the user's to set.
func CheckFlags(flags []string) error {
	for _, flag := range flags {
		name, _, _ := strings.Cut(flag, "=")
		if len(flag) > 256 || !flagPattern.MatchString(flag) {
			return fmt.Errorf("%w: malformed mount option", ErrUnsupported)
		}
		if slices.Contains(refusedFlags, name) || strings.HasPrefix(name, "X-mount.") {
			return fmt.Errorf("%w: mount option %s", ErrUnsupported, name)
		}
	}
	return nil
}

// explain makes ErrMissingProgram of a program that is not there.
func explain(err error) error {
	if errors.Is(err, child.ErrNoProgram) {
		return fmt.Errorf("%w: %w", ErrMissingProgram, err)
	}
	return err
}
