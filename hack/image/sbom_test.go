package main

import (
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	spdxjson "github.com/spdx/tools-golang/json"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
)

var discardLog = log.New(io.Discard, "", 0)

const testLock = `# a comment
amd64 libfoo1 1:2.3+dfsg-4~deb12u1 0123456789012345678901234567890123456789012345678901234567890123 debian/pool/main/f/foo.deb
arm64 libbar 1.0 0123456789012345678901234567890123456789012345678901234567890123 debian/pool/main/b/bar.deb
`

func writeFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(name, []byte(content), 0o600))
	return name
}

func sbomArgs(t *testing.T, lock string) (args []string, out, digest string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	archive, printed := archiveOf(t, "-platform", "linux/amd64="+t.TempDir())
	_, digest, _ = strings.Cut(printed, "@sha256:")
	out = filepath.Join(t.TempDir(), "bill.json")
	return []string{"sbom", "-archive", archive, "-binary", "linux/amd64=" + self, "-lock", lock,
		"-created", "2026-11-22T10:00:00+02:00", "-o", out}, out, digest
}

func TestBillParsesAndNamesWhatIsInside(t *testing.T) {
	args, out, digest := sbomArgs(t, writeFile(t, testLock))
	must(t, run(args, io.Discard))
	f, err := os.Open(out)
	must(t, err)
	defer f.Close()
	doc, err := spdxjson.Read(f)
	must(t, err)
	must(t, spdxlib.ValidateDocument(doc))
	if doc.SPDXVersion != "SPDX-2.3" || doc.CreationInfo.Created != "2026-11-22T08:00:00Z" || !strings.HasSuffix(doc.DocumentNamespace, digest) {
		t.Errorf("document %s of %s in %s", doc.SPDXVersion, doc.CreationInfo.Created, doc.DocumentNamespace)
	}

	purls := purlsOf(t, doc)
	for _, want := range []string{
		"pkg:oci/tool@sha256%3A" + digest + "?repository_url=registry.example/team/tool&tag=v1.2.3",
		"pkg:deb/debian/libfoo1@1%3A2.3%2Bdfsg-4~deb12u1?arch=amd64&distro=debian-12",
		"pkg:golang/github.com/google/go-containerregistry@" + moduleVersion(t, "github.com/google/go-containerregistry"),
		"pkg:golang/stdlib@" + strings.TrimPrefix(runtime.Version(), "go"),
	} {
		if !slices.Contains(purls, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if i := slices.IndexFunc(purls, func(p string) bool { return strings.Contains(p, "libbar") }); i >= 0 {
		t.Errorf("%s is of a platform that the image has not", purls[i])
	}
	checkRelations(t, doc)
}

func purlsOf(t *testing.T, doc *spdx.Document) []string {
	t.Helper()
	var purls []string
	for _, p := range doc.Packages {
		if p.PackageLicenseDeclared == "" || p.PackageDownloadLocation == "" || p.FilesAnalyzed {
			t.Errorf("%s: licence %q, location %q, files analyzed %v",
				p.PackageName, p.PackageLicenseDeclared, p.PackageDownloadLocation, p.FilesAnalyzed)
		}
		purls = append(purls, p.PackageExternalReferences[0].Locator)
	}
	return purls
}

// moduleVersion is a line of go.mod.
func moduleVersion(t *testing.T, module string) string {
	t.Helper()
	mod, err := os.ReadFile("go.mod")
	must(t, err)
	_, after, ok := strings.Cut(string(mod), module+" ")
	if !ok {
		t.Fatalf("go.mod does not name %s", module)
	}
	return strings.Fields(after)[0]
}

// checkRelations sees that everything is reached from the document.
func checkRelations(t *testing.T, doc *spdx.Document) {
	t.Helper()
	reached := map[string]bool{"DOCUMENT": true}
	for _, r := range doc.Relationships {
		if !reached[string(r.RefA.ElementRefID)] {
			t.Errorf("%s has parts before it is one itself", r.RefA.ElementRefID)
		}
		reached[string(r.RefB.ElementRefID)] = true
	}
	for _, p := range doc.Packages {
		if !reached[string(p.PackageSPDXIdentifier)] {
			t.Errorf("nothing has %s", p.PackageName)
		}
	}
}

func TestBillRefuses(t *testing.T) {
	for name, test := range map[string]struct{ lock, want string }{
		"a broken lock":         {"amd64 libfoo1 1.0\n", ":1: want"},
		"a hash that is none":   {"amd64 libfoo1 1.0 abc path\n", ":1: want"},
		"none for the platform": {"arm64 libbar 1.0 " + strings.Repeat("0", 64) + " path\n", "no packages for amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			args, _, _ := sbomArgs(t, writeFile(t, test.lock))
			if err := run(args, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %q", err, test.want)
			}
		})
	}
	args, _, _ := sbomArgs(t, writeFile(t, testLock))
	if err := run(append(args, "-created", "yesterday"), io.Discard); err == nil {
		t.Error("a time that is none was taken")
	}
}
