package file

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/blockdevtest"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/internal/fd"
	"golang.org/x/sys/unix"
)

// place is a directory on the real file system with a power switch, and a
// notebook of what an fsync has made stable there.
type place struct {
	dir   string
	calls fd.Calls

	mu      sync.Mutex
	armed   bool
	left    int // steps until the failure
	err     error
	cut     bool
	reached bool
	pending [2]string // the step that was let through and is under way
	stable  *notebook
	trace   []string
	// onStep is called before each step, lastStep, with the lock held.
	onStep   func()
	lastStep string
}

var _ blockdevtest.Place = (*place)(nil)

func newPlace(t *testing.T) *place { return placeAt(filepath.Join(t.TempDir(), "pool")) }

func placeAt(dir string) *place { return &place{dir: dir, stable: newNotebook(dir)} }

// silent keeps the clean-up that tests provoke out of their output.
var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

func (p *place) Open() (blockdev.Pool, error) {
	pool, err := p.open()
	if err != nil {
		return nil, err
	}
	return pool, nil
}

func (p *place) open() (*Pool, error) {
	calls := p.calls
	if calls.Fdatasync == nil {
		calls.Fdatasync = p.fdatasync
	}
	return Open(p.dir, Options{Logger: silent, step: p.step, calls: calls})
}

func (p *place) Fail(n int, err error, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.left, p.err, p.cut, p.reached = true, n, err, cut, false
}

func (p *place) Reached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = false
	return p.reached
}

func (p *place) step(event, path string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	if p.lastStep = event + " " + path; p.onStep != nil {
		p.onStep()
	}
	if p.armed && p.left == 0 {
		p.reached, p.armed = true, p.cut
		return p.err
	}
	p.left--
	if _, exists := p.stable.inode(path); event == "fsync" || event == "fsyncdir" || !exists {
		p.pending = [2]string{event, path}
	}
	p.trace = append(p.trace, event+" "+path)
	return nil
}

// settle notes the effect of the step that was under way.
func (p *place) settle() {
	event, path := p.pending[0], p.pending[1]
	p.pending = [2]string{}
	switch event {
	case "create", "mkdir":
		p.stable.made(path)
	case "fsync":
		p.stable.file(path)
	case "fsyncdir":
		p.stable.directory(path)
	}
}

// fdatasync is a device's Sync.
func (p *place) fdatasync(fd int) error {
	if err := unix.Fdatasync(fd); err != nil {
		return err
	}
	name, err := os.Readlink("/proc/self/fd/" + itoa(fd))
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	p.stable.file(strings.TrimPrefix(name, p.dir+"/"))
	return nil
}

func (p *place) AfterCut(t *testing.T) []blockdevtest.Place {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	only, empty := filepath.Join(t.TempDir(), "stable"), filepath.Join(t.TempDir(), "names")
	p.stable.restore(t, only)
	p.stable.restoreNames(t, empty)
	return []blockdevtest.Place{placeAt(p.dir), placeAt(only), placeAt(empty)}
}

// notebook knows what a power cut would leave of a directory tree: the
// entries that a directory had when it was last fsynced, and the content that
// a file had. Inodes stand for both, so that a rename moves no content.
type notebook struct {
	dir     string
	entries map[uint64]map[string]entry
	content map[uint64][]byte
}

type entry struct {
	inode uint64
	isDir bool
}

func newNotebook(dir string) *notebook {
	return &notebook{dir: dir, entries: map[uint64]map[string]entry{}, content: map[uint64][]byte{}}
}

func (n *notebook) inode(path string) (uint64, bool) {
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(n.dir, path), &st) != nil {
		return 0, false // gone again, in a test that races
	}
	return st.Ino, true
}

// made forgets what an earlier owner of the inode had.
func (n *notebook) made(path string) {
	if i, ok := n.inode(path); ok {
		delete(n.entries, i)
		delete(n.content, i)
	}
}

func (n *notebook) file(path string) {
	b, err := os.ReadFile(filepath.Join(n.dir, path))
	if i, ok := n.inode(path); ok && err == nil {
		n.content[i] = b
	}
}

func (n *notebook) directory(path string) {
	list, err := os.ReadDir(filepath.Join(n.dir, path))
	i, ok := n.inode(path)
	if err != nil || !ok {
		return
	}
	n.entries[i] = map[string]entry{}
	for _, e := range list {
		if child, ok := n.inode(filepath.Join(path, e.Name())); ok {
			n.entries[i][e.Name()] = entry{child, e.IsDir()}
		}
	}
}

// restore makes the tree of what was stable.
func (n *notebook) restore(t *testing.T, to string) {
	root, ok := n.inode(".")
	if !ok {
		return
	}
	n.restoreDir(t, root, to)
}

func (n *notebook) restoreDir(t *testing.T, inode uint64, to string) {
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, e := range n.entries[inode] {
		if e.isDir {
			n.restoreDir(t, e.inode, filepath.Join(to, name))
		} else if err := os.WriteFile(filepath.Join(to, name), n.content[e.inode], 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// restoreNames makes the tree with every name that there is now, and of the
// files only what was stable: what a file system may do that writes its
// journal before its data.
func (n *notebook) restoreNames(t *testing.T, to string) {
	err := filepath.WalkDir(n.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(n.dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		}
		inode, _ := n.inode(rel)
		return os.WriteFile(filepath.Join(to, rel), n.content[inode], 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}
