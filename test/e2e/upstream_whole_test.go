//go:build upstream

package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpstreamWhole runs all of Kubernetes' own suite that our testdriver.yaml
// selects, but for upstream/never.txt, which says why, and tells what was
// skipped in the suite's words.
func TestUpstreamWhole(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.json")
	upstream(t, os.Stdout, "--procs=6", "--timeout=5h", "--json-report="+report,
		"--focus=External.Storage.*Testpattern", "--skip="+strings.Join(upstreamSpecs(t, "never.txt"), "|"))
	data, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var suites []struct {
		SpecReports []struct {
			State, LeafNodeType, LeafNodeText string
			ContainerHierarchyTexts           []string
			Failure                           struct{ Message string }
		}
	}
	if err := json.Unmarshal(data, &suites); err != nil {
		t.Fatal(err)
	}
	states, reasons := map[string]int{}, map[string]int{}
	for _, suite := range suites {
		for _, spec := range suite.SpecReports {
			name := strings.Join(append(spec.ContainerHierarchyTexts, spec.LeafNodeText), " ")
			if spec.LeafNodeType != "It" || !strings.Contains(name, "Testpattern") {
				continue
			}
			states[spec.State]++
			if spec.State == "skipped" {
				reasons[cmp.Or(spec.Failure.Message, "named in upstream/never.txt")]++
			}
			if spec.State != "passed" && spec.State != "skipped" {
				t.Logf("%s: %s", spec.State, name)
			}
		}
	}
	t.Log(fmt.Sprint(states))
	for reason, n := range reasons {
		t.Logf("%d skipped: %s", n, reason)
	}
}
