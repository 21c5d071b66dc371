package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// locked is a line of packages.lock.
type locked struct{ architecture, name, version, sha256, path string }

// readLock returns an architecture's packages.
func readLock(file, architecture string) ([]locked, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []locked
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 5 || len(fields[3]) != 64 {
			return nil, fmt.Errorf("%s:%d: want architecture, package, version, SHA-256 and path", file, n)
		}
		if fields[0] == architecture {
			found = append(found, locked{fields[0], fields[1], fields[2], fields[3], fields[4]})
		}
	}
	if len(found) == 0 {
		return nil, errors.Join(lines.Err(), fmt.Errorf("%s has no packages for %s", file, architecture))
	}
	return found, lines.Err()
}

func (b *bill) debian(of common.ElementID, architecture, lock string) error {
	packages, err := readLock(lock, architecture)
	if err != nil {
		return err
	}
	for _, p := range packages {
		b.add(of, common.TypeRelationshipContains, &spdx.Package{
			PackageName: p.name, PackageVersion: p.version,
			PackageSupplier:         &common.Supplier{SupplierType: "Organization", Supplier: "Debian"},
			PackageDownloadLocation: "http://deb.debian.org/" + p.path,
			PackageChecksums:        checksums(v1.Hash{Hex: p.sha256}),
		}, fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=debian-12", escape(p.name), escape(p.version), architecture))
	}
	return nil
}

// golang is a module's package URL.
func golang(module, version string) string {
	return "pkg:golang/" + module + "@" + escape(version)
}

// escape percent-encodes as package URLs do.
func escape(s string) string { return url.QueryEscape(s) }
