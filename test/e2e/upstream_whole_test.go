//go:build upstream

package e2e

import (
	"os"
	"strings"
	"testing"
)

// TestUpstreamWhole runs all of Kubernetes' own suite that our testdriver.yaml
// selects, but for upstream/never.txt, which says why.
func TestUpstreamWhole(t *testing.T) {
	upstream(t, os.Stdout, "--procs=4", "--timeout=5h", "--focus=External.Storage",
		"--skip="+strings.Join(upstreamSpecs(t, "never.txt"), "|"))
}
