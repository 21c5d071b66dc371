package scsi

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const documents = "../../../../docs/"

// TestComplianceDocument: docs/scsi-compliance.md has every command.
func TestComplianceDocument(t *testing.T) {
	text, err := os.ReadFile(documents + "scsi-compliance.md")
	if err != nil {
		t.Fatal(err)
	}
	for i := range commandSet {
		name, _, _ := strings.Cut(commandSet[i].name, ",")
		if !strings.Contains(string(text), name) {
			t.Errorf("docs/scsi-compliance.md does not name %s", name)
		}
	}
}

// TestComplianceTests: the tests that the documents name are there.
func TestComplianceTests(t *testing.T) {
	var code strings.Builder
	for _, pattern := range []string{"*_test.go", "../*/*_test.go", "../../*_test.go", "../../../../test/e2e/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			code.Write(text)
		}
	}
	for _, document := range []string{"scsi-compliance.md", "rfc7143-compliance.md"} {
		text, err := os.ReadFile(documents + document)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\b(Test|Fuzz)[A-Z]\w+`).FindAllString(string(text), -1)
		if len(names) == 0 {
			t.Errorf("docs/%s names no test", document)
		}
		for _, name := range names {
			if !strings.Contains(code.String(), "func "+name+"(") && name != "TestUnitReady" { // libiscsi's
				t.Errorf("docs/%s names %s, which is not there", document, name)
			}
		}
	}
}
