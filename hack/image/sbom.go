package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// noAssertion is SPDX's word for what we do not know.
const noAssertion = "NOASSERTION"

// bill collects an image's bill of materials, SPDX 2.3.
type bill struct {
	doc  *spdx.Document
	seen map[common.ElementID]bool
}

type sbomOptions struct {
	archive, lock, out, created string
	binaries                    map[string]string
}

// sbomCommand writes what an archive's image is made of: the binaries' Go
// modules, and the Debian packages of the binaries' platforms from the lock.
func sbomCommand(args []string, _ io.Writer) error {
	o, err := parseSBOM(args)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	image, err := readArchive(o.archive, tmp)
	if err != nil {
		return err
	}
	b, err := o.bill(image)
	if err != nil {
		return err
	}
	return b.writeFile(o.out)
}

func parseSBOM(args []string) (*sbomOptions, error) {
	o := &sbomOptions{binaries: map[string]string{}}
	f := flag.NewFlagSet("sbom", flag.ContinueOnError)
	f.StringVar(&o.archive, "archive", "", "the `file` that archive wrote")
	f.StringVar(&o.lock, "lock", "", "the `file` with the Debian packages in it, where there are any")
	f.StringVar(&o.created, "created", "", "`time` of the build, RFC 3339")
	f.StringVar(&o.out, "o", "", "the `file` to write")
	f.Func("binary", "the program of a platform: `OS/ARCH=FILE`; may be given again", func(s string) error {
		platform, file, ok := strings.Cut(s, "=")
		o.binaries[platform] = file
		if !ok {
			return fmt.Errorf("%q: write OS/ARCH=FILE", s)
		}
		return nil
	})
	if err := parse(f, args); err != nil {
		return nil, err
	}
	if _, err := time.Parse(time.RFC3339, o.created); err != nil {
		return nil, fmt.Errorf("-created: %w", err)
	}
	if len(o.binaries) == 0 || o.out == "" || o.archive == "" {
		return nil, errors.New("give -archive, -binary and -o")
	}
	return o, nil
}

func (o *sbomOptions) bill(image *written) (*bill, error) {
	created, err := time.Parse(time.RFC3339, o.created)
	if err != nil {
		return nil, err
	}
	b := newBill(image, created)
	top := b.image(image)
	for _, platform := range slices.Sorted(maps.Keys(o.binaries)) {
		if err := b.binary(top, platform, o.binaries[platform]); err != nil {
			return nil, err
		}
		if o.lock == "" {
			continue
		}
		if err := b.debian(top, path.Base(platform), o.lock); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func newBill(image *written, created time.Time) *bill {
	return &bill{seen: map[common.ElementID]bool{}, doc: &spdx.Document{
		SPDXVersion:    spdx.Version,
		DataLicense:    spdx.DataLicense,
		SPDXIdentifier: "DOCUMENT",
		DocumentName:   image.ref,
		// Unique for what is described, which is what the standard asks for.
		DocumentNamespace: "https://csi-ietd.io/spdx/" + image.digest.Hex,
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Organization", Creator: "csi-ietd"}, {CreatorType: "Tool", Creator: "hack/image"}},
			Created:  created.UTC().Format(time.RFC3339),
		},
	}}
}

// add adds a package once, and that of has it in a relation (section 11).
func (b *bill) add(of common.ElementID, relation string, p *spdx.Package, purl string) common.ElementID {
	p.PackageSPDXIdentifier = identifier(p.PackageName, purl)
	p.IsFilesAnalyzedTagPresent = true
	p.PackageExternalReferences = []*spdx.PackageExternalReference{{
		Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl,
	}}
	for _, unknown := range []*string{&p.PackageDownloadLocation, &p.PackageLicenseConcluded, &p.PackageLicenseDeclared, &p.PackageCopyrightText} {
		if *unknown == "" {
			*unknown = noAssertion
		}
	}
	if !b.seen[p.PackageSPDXIdentifier] {
		b.seen[p.PackageSPDXIdentifier] = true
		b.doc.Packages = append(b.doc.Packages, p)
	}
	b.doc.Relationships = append(b.doc.Relationships, &spdx.Relationship{
		RefA: common.MakeDocElementID("", string(of)), Relationship: relation,
		RefB: common.MakeDocElementID("", string(p.PackageSPDXIdentifier)),
	})
	return p.PackageSPDXIdentifier
}

var notInIdentifier = regexp.MustCompile(`[^A-Za-z0-9.]+`)

// identifier is a package's name, made unique by its purl.
func identifier(name, purl string) common.ElementID {
	sum := sha256.Sum256([]byte(purl))
	return common.ElementID(notInIdentifier.ReplaceAllString(name, "-") + "-" + hex.EncodeToString(sum[:6]))
}

func (b *bill) image(image *written) common.ElementID {
	repository, tag, _ := cutLast(image.ref, ":")
	purl := fmt.Sprintf("pkg:oci/%s@%s?repository_url=%s&tag=%s",
		path.Base(repository), escape(image.digest.String()), repository, tag)
	return b.add("DOCUMENT", common.TypeRelationshipDescribe, &spdx.Package{
		PackageName: repository, PackageVersion: tag, PrimaryPackagePurpose: "CONTAINER",
		PackageChecksums: checksums(image.digest),
	}, purl)
}

func checksums(h v1.Hash) []common.Checksum {
	return []common.Checksum{{Algorithm: common.SHA256, Value: h.Hex}}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// binary adds a Go program and the modules that are linked into it.
func (b *bill) binary(of common.ElementID, platform, file string) error {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return err
	}
	sum, err := hashFile(file)
	if err != nil {
		return err
	}
	program := b.add(of, common.TypeRelationshipContains, &spdx.Package{
		PackageName: path.Base(info.Path) + "-" + platform, PackageVersion: info.Main.Version,
		PackageLicenseDeclared: "Apache-2.0", PrimaryPackagePurpose: "APPLICATION",
		PackageChecksums: checksums(sum),
	}, golang(info.Main.Path, info.Main.Version)+"?goos="+path.Dir(platform)+"&goarch="+path.Base(platform))
	b.module(program, "stdlib", strings.TrimPrefix(info.GoVersion, "go"))
	for _, m := range info.Deps {
		for m.Replace != nil {
			m = m.Replace
		}
		b.module(program, m.Path, m.Version)
	}
	return nil
}

func (b *bill) module(of common.ElementID, name, version string) {
	b.add(of, common.TypeRelationshipDependsOn, &spdx.Package{
		PackageName: name, PackageVersion: version, PrimaryPackagePurpose: "LIBRARY",
	}, golang(name, version))
}

func hashFile(file string) (v1.Hash, error) {
	f, err := os.Open(file)
	if err != nil {
		return v1.Hash{}, err
	}
	defer f.Close()
	h, _, err := v1.SHA256(f)
	return h, err
}

func (b *bill) writeFile(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(spdxjson.Write(b.doc, f, spdxjson.Indent(" "), spdxjson.EscapeHTML(false)), f.Close())
}
