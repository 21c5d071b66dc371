package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// parse parses a subcommand's arguments; there are only flags. A mistake is
// one line; -h shows them all.
func parse(f *flag.FlagSet, args []string) error {
	f.SetOutput(io.Discard)
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		f.SetOutput(os.Stderr)
		f.Usage()
	}
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return err
}

// defaultPlatform is meant where -file names none.
const defaultPlatform = "linux/amd64"

func (a *archive) platform(s string) (*content, error) {
	p, err := v1.ParsePlatform(s)
	if err != nil {
		return nil, err
	}
	if p.OS == "" || p.Architecture == "" || p.OSVersion != "" {
		return nil, fmt.Errorf("%q is not a platform: write OS/ARCH", s)
	}
	if a.platforms[s] == nil {
		a.platforms[s] = &content{files: map[string]string{}}
	}
	return a.platforms[s], nil
}

func (a *archive) addRoot(s string) error {
	platform, dir, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("%q: write OS/ARCH=DIR", s)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	c, err := a.platform(platform)
	if err != nil {
		return err
	}
	c.roots = append(c.roots, dir)
	return nil
}

func (a *archive) addFile(s string) error {
	in, file, ok := strings.Cut(s, "=")
	platform, at, cut := strings.Cut(in, ":")
	if !cut {
		platform, at = defaultPlatform, in
	}
	if !ok || !path.IsAbs(at) || path.Clean(at) == "/" {
		return fmt.Errorf("%q: write [OS/ARCH:]/PATH=FILE", s)
	}
	c, err := a.platform(platform)
	if err != nil {
		return err
	}
	if _, twice := c.files[path.Clean(at)]; twice {
		return fmt.Errorf("%s is given twice for %s", at, platform)
	}
	c.files[path.Clean(at)] = file
	return nil
}

func (a *archive) addLabel(s string) error {
	if a.config.Labels == nil {
		a.config.Labels = map[string]string{}
	}
	key, value, _ := strings.Cut(s, "=")
	a.config.Labels[key] = value
	return needsEquals(s)
}

func needsEquals(s string) error {
	if strings.Index(s, "=") < 1 {
		return fmt.Errorf("%q: write NAME=VALUE", s)
	}
	return nil
}

// appendWords parses words with commas between, or a JSON array.
func appendWords(to *[]string) func(string) error {
	return func(s string) error {
		if !strings.HasPrefix(s, "[") {
			*to = append(*to, strings.Split(s, ",")...)
			return nil
		}
		var words []string
		if err := json.Unmarshal([]byte(s), &words); err != nil {
			return fmt.Errorf("%q: %w", s, err)
		}
		*to = append(*to, words...)
		return nil
	}
}
