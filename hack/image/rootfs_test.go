package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const nodeDir = "../../deploy/images/node"

// machines are the ELF machines of the architectures.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

func rootfs(t *testing.T, architecture string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	if out, err := exec.Command(filepath.Join(nodeDir, "rootfs"), architecture, root).CombinedOutput(); err != nil {
		t.Fatalf("rootfs %s: %v\n%s", architecture, err, out)
	}
	return root
}

// tools are the programs that the node plugin runs: what Tools in
// pkg/driver/mount lists, and nsenter, which leads to the host's iscsiadm.
func tools(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../pkg/driver/mount/mounter.go", nil, 0)
	must(t, err)
	found := []string{"nsenter"}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "Tools" {
			continue
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				name, err := strconv.Unquote(lit.Value)
				must(t, err)
				found = append(found, name)
			}
			return true
		})
	}
	if len(found) < 2 {
		t.Fatal("pkg/driver/mount has no Tools with programs")
	}
	return found
}

func TestRootFilesystem(t *testing.T) {
	for architecture, machine := range machines {
		t.Run(architecture, func(t *testing.T) {
			root := rootfs(t, architecture)
			checkModes(t, root)
			checkPrograms(t, root, machine)
			checkELF(t, root, machine)
			checkScannable(t, root, architecture)
			if architecture == runtime.GOARCH {
				runTools(t, root)
				formatIn(t, root)
			}
		})
	}
}

// checkModes sees that nothing gives privileges, and says how large it all is.
func checkModes(t *testing.T, root string) {
	t.Helper()
	var size int64
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%s is %v", p, info.Mode())
		}
		if info.Mode().Type()&^(fs.ModeDir|fs.ModeSymlink) != 0 {
			t.Errorf("%s is a %v", p, info.Mode().Type())
		}
		if info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	}))
	t.Logf("%.1f MB in files", float64(size)/1e6)
	if limit := int64(60e6); size < 5e6 || size > limit {
		t.Errorf("%d bytes: want something between 5 MB and %d", size, limit)
	}
}

// inside opens a program of the tree, following links as the container will:
// absolute ones begin at the root.
func inside(t *testing.T, root, name string) (*elf.File, error) {
	t.Helper()
	at, rest := "/", strings.Split(name, "/")
	for links := 0; len(rest) > 0 && links < 40; {
		next := path.Join(at, rest[0])
		rest = rest[1:]
		target, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			at = next
			continue
		}
		if links++; path.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	f, err := elf.Open(filepath.Join(root, at))
	if err == nil {
		t.Cleanup(func() { _ = f.Close() })
	}
	return f, err
}

func checkPrograms(t *testing.T, root string, machine elf.Machine) {
	t.Helper()
	for _, tool := range append(tools(t), "sh", "xfs_repair", "e2fsck") {
		f, err := inside(t, root, "sbin/"+tool)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = inside(t, root, "bin/"+tool)
		}
		if err != nil {
			t.Errorf("%s: %v", tool, err)
		} else if f.Machine != machine {
			t.Errorf("%s is for %v, want %v", tool, f.Machine, machine)
		}
	}
}

// checkELF sees that every program and library finds its libraries, in the
// directories that Debian's loader looks in without a cache.
func checkELF(t *testing.T, root string, machine elf.Machine) {
	t.Helper()
	libraries, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu/*.so*"))
	must(t, err)
	have := map[string]bool{}
	for _, l := range libraries {
		// Stat follows the link: a dangling one is no library.
		if _, err := os.Stat(l); err == nil {
			have[filepath.Base(l)] = true
		}
	}
	seen := 0
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := elf.Open(p)
		if err != nil {
			// A script or data: it needs no library.
			return nil
		}
		defer f.Close()
		seen++
		needed, err := f.ImportedLibraries()
		if err != nil {
			return err
		}
		for _, n := range needed {
			if !have[n] {
				t.Errorf("%s needs %s", strings.TrimPrefix(p, root), n)
			}
		}
		if f.Machine != machine {
			t.Errorf("%s is for %v", p, f.Machine)
		}
		return loaderIsThere(t, root, f)
	}))
	if seen < 100 {
		t.Errorf("only %d ELF files", seen)
	}
}

func loaderIsThere(t *testing.T, root string, f *elf.File) error {
	t.Helper()
	s := f.Section(".interp")
	if s == nil {
		return nil
	}
	interp, err := s.Data()
	if err != nil {
		return err
	}
	_, err = inside(t, root, strings.Trim(string(interp), "/\x00"))
	return err
}

// checkScannable sees that scanners find Debian's name and each package.
func checkScannable(t *testing.T, root, architecture string) {
	t.Helper()
	release, err := os.ReadFile(filepath.Join(root, "etc/os-release"))
	if err != nil || !bytes.Contains(release, []byte("ID=debian")) {
		t.Errorf("os-release: %q, %v", release, err)
	}
	packages, err := readLock(filepath.Join(nodeDir, "packages.lock"), architecture)
	must(t, err)
	for _, p := range packages {
		status, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status.d", p.name))
		if err != nil || !bytes.Contains(status, []byte("Version: "+p.version+"\n")) {
			t.Errorf("%s %s: %v: %.80s", p.name, p.version, err, status)
		}
	}
}

func chroot(root, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(filepath.Join("/usr/sbin", name), args...)
	if _, err := os.Stat(filepath.Join(root, cmd.Path)); err != nil {
		cmd.Path = filepath.Join("/usr/bin", name)
	}
	cmd.Err = nil
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	return cmd.CombinedOutput()
}

// runTools starts every program in the tree, as root.
func runTools(t *testing.T, root string) {
	t.Helper()
	extra := []string{"xfs_repair", "e2fsck", "findmnt", "dash"}
	for _, tool := range append(tools(t), extra...) {
		args := []string{"-V"}
		switch tool {
		case "resize2fs": // it has no such option, but names itself
			args = nil
		case "sync", "umount", "mount":
			args = []string{"--version"}
		case "dash":
			args = []string{"-c", "echo it runs"}
		}
		out, err := chroot(root, tool, args...)
		var exit *exec.ExitError
		if tool == "resize2fs" && errors.As(err, &exit) && exit.ExitCode() == 1 {
			err = nil
		}
		if err != nil || len(out) == 0 {
			t.Errorf("%s %v: %v\n%s", tool, args, err, out)
		}
	}
}

// formatIn makes and checks file systems with the tree's programs.
func formatIn(t *testing.T, root string) {
	t.Helper()
	disk := filepath.Join(root, "tmp/disk")
	for _, test := range []struct{ fsType, mkfs, check string }{
		{"ext4", "mkfs.ext4 -q -m 0 -E nodiscard /tmp/disk", "fsck.ext4 -p /tmp/disk"},
		{"xfs", "mkfs.xfs -q -K /tmp/disk", "xfs_repair -n /tmp/disk"},
	} {
		must(t, os.WriteFile(disk, nil, 0o600))
		must(t, os.Truncate(disk, 512<<20))
		for _, line := range []string{test.mkfs, test.check} {
			words := strings.Fields(line)
			if out, err := chroot(root, words[0], words[1:]...); err != nil {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
		}
		out, err := chroot(root, "blkid", "--probe", "--output", "export", "/tmp/disk")
		if err != nil || !slices.Contains(strings.Split(string(out), "\n"), "TYPE="+test.fsType) {
			t.Errorf("blkid: %v, want TYPE=%s in\n%s", err, test.fsType, out)
		}
		must(t, os.Remove(disk))
	}
}
