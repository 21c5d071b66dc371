package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
)

// Entry is one line of the kernel's mount table.
type Entry struct {
	Path string
	// Number is the mounted file system's device, "major:minor".
	Number string
	FsType string
	// root is what of the file system is shown.
	root string
	// ReadOnly is so when the mount or its file system is.
	ReadOnly bool
}

func (m *Mounter) table() ([]Entry, error) {
	f, err := os.Open(m.mountinfo)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	infos, err := mountinfo.GetMountsFromReader(f, nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	entries := make([]Entry, 0, len(infos))
	for _, i := range infos {
		entries = append(entries, Entry{
			Path: i.Mountpoint, root: i.Root, FsType: i.FSType, Number: fmt.Sprintf("%d:%d", i.Major, i.Minor),
			ReadOnly: hasOption(i.Options, "ro") || hasOption(i.VFSOptions, "ro"),
		})
	}
	return entries, nil
}

func hasOption(options, want string) bool {
	return slices.Contains(splitOptions(options), want)
}

// At returns the mounts at a path, the visible one last.
func (m *Mounter) At(path string) ([]Entry, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	entries, err := m.table()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(entries, func(e Entry) bool { return e.Path != path }), nil
}

// Of returns the mounts of a device's file system, and the bind mounts of its
// device node, wherever they are.
func (m *Mounter) Of(number, device string) ([]Entry, error) {
	entries, err := m.table()
	if err != nil {
		return nil, err
	}
	node := "/" + filepath.Base(device)
	return slices.DeleteFunc(entries, func(e Entry) bool {
		return e.Number != number && (e.FsType != "devtmpfs" || e.root != node)
	}), nil
}

// resolve follows the symbolic links of the directories above a mount point,
// as the kernel's table has them. The last element is left alone: looking at
// it could block on what is mounted there.
func resolve(path string) (string, error) {
	path = filepath.Clean(path)
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%w: path %q is not absolute", ErrUnsupported, path)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if os.IsNotExist(err) {
		return path, nil // nothing can be mounted there
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}
