package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const modulePath = "github.com/csi-ietd/csi-ietd"

// The programs that the lab builds and every guest finds in /run/lab/bin.
const (
	Agent  = "guest"
	Driver = "csi-ietd"
	Sanity = "csi-sanity"
	writer = "writer"
)

// packages are what the lab builds, each into a static binary of that name.
var packages = map[string]string{
	Agent:  modulePath + "/test/e2e/guest",
	Driver: modulePath + "/cmd/csi-ietd",
	Sanity: modulePath + "/test/e2e/sanity",
	writer: modulePath + "/test/e2e/writer",
}

// buildBinaries builds the programs, and what guests' kernels need, into dir. It runs before the namespaces
// are made, since a first build may have to fetch modules. A program that does
// not build is an error only for who asks for it: see [Lab.Binary].
func buildBinaries(dir string) error {
	cache, err := openCache()
	if err != nil {
		return err
	}
	defer cache.Close()
	var builds errgroup.Group
	builds.Go(func() error { return buildPtrace(dir) })
	for name, pkg := range packages {
		builds.Go(func() error {
			cached := filepath.Join(cache.dir, name)
			if out, err := build(cached, pkg); err != nil {
				return os.WriteFile(errorFile(dir, name), out, 0o644)
			}
			return copyFile(filepath.Join(dir, name), cached)
		})
	}
	return builds.Wait()
}

func build(out, pkg string) ([]byte, error) {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd.CombinedOutput()
}

// cache is the user's cache of built programs, locked against another run.
// go build leaves a file there alone when nothing that it depends on changed.
type cache struct {
	dir string
	*os.File
}

func openCache() (*cache, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(user, "csi-ietd", "lab")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Create(filepath.Join(dir, lockName))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &cache{dir, lock}, nil
}

func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func errorFile(dir, name string) string { return filepath.Join(dir, name+".build-error") }

// Binary returns the path, on every machine of the lab, of a program that the
// lab has built, or the compiler's words if it did not build.
func (l *Lab) Binary(m *Machine, name string) (string, error) {
	dir := filepath.Join(l.root, "bin")
	if text, err := os.ReadFile(errorFile(dir, name)); err == nil {
		return "", fmt.Errorf("building %s: %s", name, strings.TrimSpace(string(text)))
	}
	return filepath.Join(m.bin, name), nil
}

// Provide puts files that lie on the machine, programs most likely, into the
// directory that every machine of the lab sees, and returns its name on m.
func (l *Lab) Provide(m *Machine, files ...string) (string, error) {
	for _, file := range files {
		if err := l.provide(file); err != nil {
			return "", err
		}
	}
	return m.bin, nil
}

// provide makes a link, or a copy where the file lies on another file system,
// in the place of what may be there under that name and in use.
func (l *Lab) provide(file string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := filepath.Join(l.root, "bin", filepath.Base(file))
	src, err := os.Stat(file)
	if err != nil {
		return err
	}
	if dst, err := os.Stat(at); err == nil && os.SameFile(src, dst) {
		return nil
	}
	part := at + ".part"
	if err := os.Link(file, part); err != nil {
		if err := copyFile(part, file); err != nil {
			return err
		}
	}
	return os.Rename(part, at)
}
