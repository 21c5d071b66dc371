package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const testRef = "registry.example/team/tool:v1.2.3"

// testTree has one of everything that an image may hold.
func testTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755))
	must(t, os.Mkdir(filepath.Join(root, "empty"), 0o755))
	must(t, os.Mkdir(filepath.Join(root, "tmp"), 0o755))
	must(t, os.Chmod(filepath.Join(root, "tmp"), 0o777|os.ModeSticky))
	must(t, os.WriteFile(filepath.Join(root, "usr/bin/tool"), []byte("a tool\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "secret"), []byte("mine"), 0o600))
	must(t, os.Link(filepath.Join(root, "usr/bin/tool"), filepath.Join(root, "usr/bin/zool")))
	must(t, os.Symlink("usr/bin", filepath.Join(root, "bin")))
	must(t, os.Symlink("/nowhere", filepath.Join(root, "dangling")))
	long := strings.Repeat("long/", 60)
	must(t, os.MkdirAll(filepath.Join(root, long), 0o755))
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archiveOf runs the subcommand and returns the archive and what it printed.
func archiveOf(t *testing.T, args ...string) (file, printed string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "out.tar")
	var out bytes.Buffer
	must(t, run(slices.Concat([]string{"archive", "-ref", testRef, "-o", file}, args), &out))
	return file, strings.TrimSpace(out.String())
}

// unpack puts an archive's layout into a directory, and checks each blob's
// name against its bytes and that nothing of this machine is in the headers.
func unpack(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	dir := t.TempDir()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		must(t, err)
		checkHeader(t, h)
		p := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			must(t, os.Mkdir(p, 0o755))
			continue
		}
		data, err := io.ReadAll(r)
		must(t, err)
		if sum := sha256.Sum256(data); strings.HasPrefix(h.Name, "blobs/") && filepath.Base(h.Name) != hex.EncodeToString(sum[:]) {
			t.Errorf("%s has other bytes than its name says", h.Name)
		}
		must(t, os.WriteFile(p, data, 0o644))
	}
}

func checkHeader(t *testing.T, h *tar.Header) {
	t.Helper()
	if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || h.ModTime.Unix() != 0 {
		t.Errorf("%s: owner %d:%d %q:%q, time %v", h.Name, h.Uid, h.Gid, h.Uname, h.Gname, h.ModTime)
	}
}

// readBack returns the image's index from an archive, after every digest in
// it was checked.
func readBack(t *testing.T, file string) v1.ImageIndex {
	t.Helper()
	outer, err := layout.ImageIndexFromPath(unpack(t, file))
	must(t, err)
	must(t, validate.Index(outer))
	m, err := outer.IndexManifest()
	must(t, err)
	if len(m.Manifests) != 1 || m.Manifests[0].MediaType != types.OCIImageIndex {
		t.Fatalf("the layout holds %v, want one image index", m.Manifests)
	}
	got := m.Manifests[0].Annotations
	want := map[string]string{containerdName: testRef, refName: "v1.2.3"}
	if !maps.Equal(got, want) {
		t.Errorf("annotations %v, want %v", got, want)
	}
	inner, err := outer.ImageIndex(m.Manifests[0].Digest)
	must(t, err)
	return inner
}

func imageFor(t *testing.T, index v1.ImageIndex, platform string) v1.Image {
	t.Helper()
	m, err := index.IndexManifest()
	must(t, err)
	for _, d := range m.Manifests {
		if d.Platform.String() == platform {
			image, err := index.Image(d.Digest)
			must(t, err)
			return image
		}
	}
	t.Fatalf("no image for %s in %v", platform, m.Manifests)
	return nil
}

// headers returns what a layer holds, by name.
func headers(t *testing.T, l v1.Layer) map[string]*tar.Header {
	t.Helper()
	rc, err := l.Uncompressed()
	must(t, err)
	defer rc.Close()
	found := map[string]*tar.Header{}
	for r := tar.NewReader(rc); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		must(t, err)
		checkHeader(t, h)
		found[h.Name] = h
	}
}

func TestTreeIsKept(t *testing.T) {
	file, printed := archiveOf(t, "-platform", "linux/amd64="+testTree(t))
	index := readBack(t, file)
	digest, err := index.Digest()
	must(t, err)
	if want := testRef + "@" + digest.String(); printed != want {
		t.Errorf("printed %s, want %s", printed, want)
	}
	layers, err := imageFor(t, index, "linux/amd64").Layers()
	must(t, err)
	if len(layers) != 1 {
		t.Fatalf("%d layers, want 1", len(layers))
	}
	found := headers(t, layers[0])
	for name, want := range map[string]tar.Header{
		"empty/":                    {Typeflag: tar.TypeDir, Mode: 0o755},
		"tmp/":                      {Typeflag: tar.TypeDir, Mode: 0o1777},
		"usr/bin/tool":              {Typeflag: tar.TypeReg, Mode: 0o755, Size: 7},
		"usr/bin/zool":              {Typeflag: tar.TypeLink, Mode: 0o755, Linkname: "usr/bin/tool"},
		"secret":                    {Typeflag: tar.TypeReg, Mode: 0o600, Size: 4},
		"bin":                       {Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: "usr/bin"},
		"dangling":                  {Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: "/nowhere"},
		strings.Repeat("long/", 60): {Typeflag: tar.TypeDir, Mode: 0o755},
	} {
		got := found[name]
		if got == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		if got.Typeflag != want.Typeflag || got.Mode != want.Mode || got.Size != want.Size || got.Linkname != want.Linkname {
			t.Errorf("%s: type %c mode %o size %d link %q, want %c %o %d %q", name,
				got.Typeflag, got.Mode, got.Size, got.Linkname, want.Typeflag, want.Mode, want.Size, want.Linkname)
		}
	}
}

func TestConfigAndPlatforms(t *testing.T) {
	root, binary := testTree(t), filepath.Join(t.TempDir(), "tool")
	must(t, os.WriteFile(binary, []byte("binary"), 0o700))
	file, _ := archiveOf(t,
		"-platform", "linux/amd64="+root, "-file", "/opt/bin/tool="+binary,
		"-file", "linux/arm64:/tool="+binary,
		"-entrypoint", "/tool,serve", "-cmd", `["--list","a,b"]`, "-user", "65532:65532",
		"-env", "A=b=c", "-env", "PATH=/bin", "-workdir", "/tmp", "-label", "k=v")
	index := readBack(t, file)

	amd, arm := imageFor(t, index, "linux/amd64"), imageFor(t, index, "linux/arm64")
	for platform, image := range map[string]v1.Image{"amd64": amd, "arm64": arm} {
		c, err := image.ConfigFile()
		must(t, err)
		if c.OS != "linux" || c.Architecture != platform || !c.Created.IsZero() || len(c.History) != 0 {
			t.Errorf("%s: config %+v", platform, c)
		}
		if !slices.Equal(c.Config.Entrypoint, []string{"/tool", "serve"}) || !slices.Equal(c.Config.Cmd, []string{"--list", "a,b"}) ||
			!slices.Equal(c.Config.Env, []string{"A=b=c", "PATH=/bin"}) || c.Config.User != "65532:65532" ||
			c.Config.WorkingDir != "/tmp" || c.Config.Labels["k"] != "v" {
			t.Errorf("%s: %+v", platform, c.Config)
		}
	}
	layers, err := amd.Layers()
	must(t, err)
	if len(layers) != 2 {
		t.Fatalf("amd64 has %d layers, want the directory's and the file's", len(layers))
	}
	found := headers(t, layers[1])
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, []string{"opt/", "opt/bin/", "opt/bin/tool"}) {
		t.Errorf("the file's layer holds %v", got)
	}
	if mode := found["opt/bin/tool"].Mode; mode != 0o755 {
		t.Errorf("a program of mode 0700 has %o in the image: another user cannot run it", mode)
	}
}

func TestTwoRunsAreTheSame(t *testing.T) {
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	first, _ := archiveOf(t, "-platform", "linux/amd64="+testTree(t), "-label", "b=1", "-label", "a=2")
	// Another directory, made later, and a stricter umask for the archive.
	root := testTree(t)
	syscall.Umask(0o077)
	second, _ := archiveOf(t, "-platform", "linux/amd64="+root, "-label", "a=2", "-label", "b=1")
	a, err := os.ReadFile(first)
	must(t, err)
	b, err := os.ReadFile(second)
	must(t, err)
	if !bytes.Equal(a, b) {
		t.Error("two runs on the same content wrote different archives")
	}
}

func TestBadArguments(t *testing.T) {
	root, out := t.TempDir(), filepath.Join(t.TempDir(), "out.tar")
	ok := []string{"-ref", testRef, "-platform", "linux/amd64=" + root, "-o", out}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no ref":          {[]string{"-platform", "linux/amd64=" + root, "-o", out}, "-ref"},
		"no tag":          {slices.Concat(ok, []string{"-ref", "registry.example/x"}), "-ref"},
		"no registry":     {slices.Concat(ok, []string{"-ref", "busybox:1"}), "-ref"},
		"nothing in it":   {[]string{"-ref", testRef, "-o", out}, "empty"},
		"no output":       {ok[:4], "-o"},
		"no such dir":     {slices.Concat(ok, []string{"-platform", "linux/amd64=" + root + "/no"}), "no such file"},
		"no platform":     {slices.Concat(ok, []string{"-platform", root}), "OS/ARCH"},
		"half a platform": {slices.Concat(ok, []string{"-platform", "linux=" + root}), "OS/ARCH"},
		"relative file":   {slices.Concat(ok, []string{"-file", "x=" + out}), "/PATH"},
		"file is missing": {slices.Concat(ok, []string{"-file", "/x=" + out}), "no such file"},
		"file twice":      {slices.Concat(ok, []string{"-file", "/x=a", "-file", "//x=b"}), "twice"},
		"bad environment": {slices.Concat(ok, []string{"-env", "A"}), "NAME=VALUE"},
		"bad JSON":        {slices.Concat(ok, []string{"-cmd", `["a"`}), "JSON"},
		"stray argument":  {slices.Concat(ok, []string{"stray"}), "stray"},
		"unknown flag":    {slices.Concat(ok, []string{"-nonsense"}), "nonsense"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(append([]string{"archive"}, test.args...), io.Discard)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %q", err, test.want)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("an archive was left behind")
			}
		})
	}
}

func TestDeviceIsRefused(t *testing.T) {
	root := t.TempDir()
	must(t, syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600))
	err := run([]string{"archive", "-ref", testRef, "-platform", "linux/amd64=" + root, "-o", filepath.Join(t.TempDir(), "o")}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "pipe") {
		t.Errorf("error %v, want one that names the pipe", err)
	}
}
