package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// pushCommand sends an archive's image to its registry, with the credentials
// that docker login left, and prints it by digest: what one may sign.
func pushCommand(args []string, out io.Writer) error {
	f := flag.NewFlagSet("push", flag.ContinueOnError)
	file := f.String("archive", "", "the `file` that archive wrote")
	as := f.String("ref", "", "another `name` than the archive's")
	if err := parse(f, args); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()

	image, err := readArchive(*file, tmp)
	if err != nil {
		return err
	}
	if *as != "" {
		image.ref = *as
	}
	tag, err := name.NewTag(image.ref, name.StrictValidation)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(tag, image.index, remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push %s: %w", image.ref, err)
	}
	_, err = fmt.Fprintf(out, "%s@%s\n", tag.Context().Name(), image.digest)
	return err
}
