package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// written is an archive as it was written: its image's name, the index of its
// platforms, and the index's digest.
type written struct {
	ref    string
	index  v1.ImageIndex
	digest v1.Hash
}

// readArchive reads an archive by way of the directory dir, which must outlive
// the index.
func readArchive(file, dir string) (*written, error) {
	w, err := readLayout(file, dir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return w, nil
}

func readLayout(file, dir string) (*written, error) {
	if err := untar(file, dir); err != nil {
		return nil, err
	}
	outer, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	m, err := outer.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(m.Manifests) != 1 || m.Manifests[0].Annotations[containerdName] == "" {
		return nil, errors.New("not an archive of one image with its name")
	}
	d := m.Manifests[0]
	index, err := outer.ImageIndex(d.Digest)
	return &written{d.Annotations[containerdName], index, d.Digest}, err
}

// untar unpacks an archive's files; nothing else is in there, and nothing
// outside of dir is touched.
func untar(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := write(root, h.Name, r); err != nil {
			return err
		}
	}
}

func write(root *os.Root, name string, from io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
