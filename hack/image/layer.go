package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layer is a gzipped tar in a file, as an image's layer.
type layer struct {
	file           string
	digest, diffID v1.Hash
	size           int64
}

var _ v1.Layer = (*layer)(nil)

func (l *layer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.diffID, nil }
func (l *layer) Size() (int64, error)                 { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.OCILayer, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return os.Open(l.file) }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return openGzip(l.file) }

type gzipFile struct {
	*gzip.Reader
	file *os.File
}

func (g gzipFile) Close() error { return g.file.Close() }

func openGzip(name string) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return gzipFile{z, f}, nil
}

// writeLayer makes a layer in dir of what fill writes.
func writeLayer(dir string, fill func(*tar.Writer) error) (*layer, error) {
	f, err := os.CreateTemp(dir, "layer-")
	if err != nil {
		return nil, err
	}
	defer f.Close()

	digest, diffID := sha256.New(), sha256.New()
	// A gzip header without name and time is the same on every run.
	z := gzip.NewWriter(io.MultiWriter(f, digest))
	t := tar.NewWriter(io.MultiWriter(z, diffID))
	if err := fill(t); err != nil {
		return nil, err
	}
	for _, c := range []io.Closer{t, z} {
		if err := c.Close(); err != nil {
			return nil, err
		}
	}
	size, err := f.Seek(0, io.SeekCurrent)
	return &layer{f.Name(), hashOf(digest), hashOf(diffID), size}, err
}

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

// entry is a header with what makes runs differ taken out: times, owners and
// the names of owners.
func entry(name string, kind byte, mode fs.FileMode) *tar.Header {
	h := &tar.Header{Name: name, Typeflag: kind, Mode: int64(mode.Perm()), ModTime: time.Unix(0, 0)}
	for bit, unix := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&bit != 0 {
			h.Mode |= unix
		}
	}
	return h
}

// tree writes the directory tree below root: files, directories, symbolic and
// hard links, with their modes. Extended attributes are not kept.
func tree(root string) func(*tar.Writer) error {
	return walk(root, func(info fs.FileInfo) fs.FileInfo { return info })
}

func walk(root string, seen func(fs.FileInfo) fs.FileInfo) func(*tar.Writer) error {
	return func(t *tar.Writer) error {
		links := map[inode]string{}
		// WalkDir goes in lexical order.
		return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || p == root {
				return err
			}
			name, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			return node(t, p, name, seen(info), links)
		})
	}
}

type inode struct{ dev, ino uint64 }

func node(t *tar.Writer, p, name string, info fs.FileInfo, links map[inode]string) error {
	switch info.Mode().Type() {
	case fs.ModeDir:
		return t.WriteHeader(entry(name+"/", tar.TypeDir, info.Mode()))
	case fs.ModeSymlink:
		target, err := os.Readlink(p)
		if err != nil {
			return err
		}
		h := entry(name, tar.TypeSymlink, 0o777)
		h.Linkname = target
		return t.WriteHeader(h)
	case 0:
		if first, ok := linkedTo(name, info, links); ok {
			h := entry(name, tar.TypeLink, info.Mode())
			h.Linkname = first
			return t.WriteHeader(h)
		}
		return regular(t, p, name, info)
	}
	return fmt.Errorf("%s: a %s does not belong into an image", p, info.Mode().Type())
}

// linkedTo returns the earlier name of the same file, and notes this one.
func linkedTo(name string, info fs.FileInfo, links map[inode]string) (string, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return "", false
	}
	id := inode{st.Dev, st.Ino}
	first, seen := links[id]
	if !seen {
		links[id] = name
	}
	return first, seen
}

func regular(t *tar.Writer, p, name string, info fs.FileInfo) error {
	h := entry(name, tar.TypeReg, info.Mode())
	h.Size = info.Size()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}

// files writes single files: a map from the absolute path in the image to the
// file of this machine. Missing directories come with mode 0755.
func files(paths map[string]string) func(*tar.Writer) error {
	return func(t *tar.Writer) error {
		made := map[string]bool{".": true}
		for _, in := range slices.Sorted(maps.Keys(paths)) {
			name := strings.TrimPrefix(path.Clean(in), "/")
			if err := parents(t, path.Dir(name), made); err != nil {
				return err
			}
			info, err := os.Stat(paths[in])
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() {
				return fmt.Errorf("%s is not a file", paths[in])
			}
			if err := regular(t, paths[in], name, withoutUmask{info}); err != nil {
				return err
			}
		}
		return nil
	}
}

// withoutUmask is a file that everybody may read, and run where anybody may:
// the umask it was made under is nothing of the image's.
type withoutUmask struct{ fs.FileInfo }

func (w withoutUmask) Mode() fs.FileMode {
	if w.IsDir() || w.FileInfo.Mode()&0o111 != 0 {
		return w.FileInfo.Mode().Type() | 0o755
	}
	return w.FileInfo.Mode().Type() | 0o644
}

func parents(t *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := parents(t, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return t.WriteHeader(entry(dir+"/", tar.TypeDir, 0o755))
}
