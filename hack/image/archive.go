package main

import (
	"archive/tar"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	// containerdName is what containerd's import names an image by.
	containerdName = "io.containerd.image.name"
	// refName is the tag, by the OCI image layout specification.
	refName = "org.opencontainers.image.ref.name"
)

// archive is an image to write: what archive's flags say.
type archive struct {
	ref       string
	platforms map[string]*content
	config    v1.Config
	out       string
}

// content is what one platform's image holds: a layer for each root, and one
// for the files.
type content struct {
	roots []string
	files map[string]string
}

func archiveCommand(args []string, out io.Writer) error {
	a, err := parseArchive(args)
	if err != nil {
		return err
	}
	digest, err := a.write()
	if err != nil {
		return fmt.Errorf("write %s: %w", a.out, err)
	}
	_, err = fmt.Fprintf(out, "%s@%s\n", a.ref, digest)
	return err
}

func parseArchive(args []string) (*archive, error) {
	a := &archive{platforms: map[string]*content{}}
	f := flag.NewFlagSet("archive", flag.ContinueOnError)
	f.StringVar(&a.ref, "ref", "", "the image's full `name`, with registry and tag")
	f.Func("platform", "a directory as a layer of a platform: `OS/ARCH=DIR`; may be given again", a.addRoot)
	f.Func("file", "a file in the image: `[OS/ARCH:]/PATH=FILE`, for linux/amd64 unless said; may be given again", a.addFile)
	f.Func("entrypoint", "`list`: words with commas between, or a JSON array; may be given again", appendWords(&a.config.Entrypoint))
	f.Func("cmd", "`list` of the entry point's default arguments, like -entrypoint", appendWords(&a.config.Cmd))
	f.StringVar(&a.config.User, "user", "", "`UID:GID` that it runs as, root unless said")
	f.StringVar(&a.config.WorkingDir, "workdir", "", "working `directory`")
	f.Func("env", "`NAME=VALUE` in its environment; may be given again", func(s string) error {
		a.config.Env = append(a.config.Env, s)
		return needsEquals(s)
	})
	f.Func("label", "`NAME=VALUE` among its labels; may be given again", a.addLabel)
	f.StringVar(&a.out, "o", "", "the archive to write")
	if err := parse(f, args); err != nil {
		return nil, err
	}
	return a, a.validate()
}

func (a *archive) validate() error {
	if _, err := name.NewTag(a.ref, name.StrictValidation); err != nil {
		return fmt.Errorf("-ref: %w", err)
	}
	if !strings.Contains(strings.SplitN(a.ref, "/", 2)[0], ".") {
		return fmt.Errorf("-ref %s: name the registry too, such as docker.io/library/%s", a.ref, a.ref)
	}
	if len(a.platforms) == 0 {
		return errors.New("the image is empty: give -platform or -file")
	}
	if a.out == "" {
		return errors.New("give -o, the archive to write")
	}
	return nil
}

// write writes the archive, by way of a file beside it so that nobody sees
// half an archive, and returns the digest of the image's index.
func (a *archive) write() (v1.Hash, error) {
	tmp, err := os.MkdirTemp(filepath.Dir(a.out), ".image-")
	if err != nil {
		return v1.Hash{}, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()

	index, err := a.index(tmp)
	if err != nil {
		return v1.Hash{}, err
	}
	digest, err := index.Digest()
	if err != nil {
		return v1.Hash{}, err
	}
	dir, part := filepath.Join(tmp, "layout"), filepath.Join(tmp, "archive")
	if err := a.writeLayout(dir, index); err != nil {
		return v1.Hash{}, err
	}
	if err := writeTar(part, dir); err != nil {
		return v1.Hash{}, err
	}
	return digest, os.Rename(part, a.out)
}

// index is the image's index: a manifest for each platform. Layers lie in tmp.
func (a *archive) index(tmp string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range slices.Sorted(maps.Keys(a.platforms)) {
		platform, err := v1.ParsePlatform(p)
		if err != nil {
			return nil, err
		}
		image, err := a.image(tmp, *platform, a.platforms[p])
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: platform},
		})
	}
	return index, nil
}

func (a *archive) image(tmp string, platform v1.Platform, c *content) (v1.Image, error) {
	layers, err := c.layers(tmp)
	if err != nil {
		return nil, err
	}
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layers...); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	config.Config = a.config
	// The history of one build says nothing, and would carry its times.
	config.History = nil
	return mutate.ConfigFile(image, config)
}

func (c *content) layers(tmp string) ([]v1.Layer, error) {
	var layers []v1.Layer
	add := func(fill func(*tar.Writer) error) error {
		l, err := writeLayer(tmp, fill)
		layers = append(layers, l)
		return err
	}
	for _, root := range c.roots {
		if err := add(tree(root)); err != nil {
			return nil, err
		}
	}
	if len(c.files) == 0 {
		return layers, nil
	}
	return layers, add(files(c.files))
}

// writeLayout writes an OCI image layout whose one entry is the index, by the
// names that containerd and others import it under.
func (a *archive) writeLayout(dir string, index v1.ImageIndex) error {
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(a.ref, name.StrictValidation)
	if err != nil {
		return err
	}
	return l.AppendIndex(index, layout.WithAnnotations(map[string]string{
		containerdName: a.ref,
		refName:        tag.TagStr(),
	}))
}

func writeTar(file, dir string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	t := tar.NewWriter(f)
	fill := walk(dir, func(info fs.FileInfo) fs.FileInfo { return withoutUmask{info} })
	if err := fill(t); err != nil {
		return err
	}
	return errors.Join(t.Close(), f.Close())
}
