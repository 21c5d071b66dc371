package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestUpstream runs the specs of Kubernetes' own suite for storage drivers
// that upstream/always.txt names. E2E_UPSTREAM is its program; `make
// e2e-upstream` runs the whole of it.
func TestUpstream(t *testing.T) {
	program := os.Getenv("E2E_UPSTREAM")
	if program == "" {
		t.Fatal("E2E_UPSTREAM names no program: test/e2e/run sets it")
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	names := upstreamSpecs(t)
	cmd := exec.CommandContext(t.Context(), program, "-provider=skeleton", "-kubeconfig="+os.Getenv("KUBECONFIG"),
		"-storage.testdriver="+filepath.Join(cwd, "upstream/testdriver.yaml"),
		"-ginkgo.focus="+strings.Join(names, "|"), "-ginkgo.timeout=20m", "-ginkgo.no-color")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ran := regexp.MustCompile(`(?m)^Ran (\d+) of \d+ Specs.*$`).FindSubmatch(out)
	if ran == nil {
		t.Fatalf("no summary in:\n%s", out)
	}
	t.Logf("%s", ran[0])
	if got := string(ran[1]); got != strconv.Itoa(len(names)) {
		t.Errorf("%s specs ran, upstream/always.txt names %d", got, len(names))
	}
}

// upstreamSpecs are the names in always.txt, each as an expression that
// matches it alone.
func upstreamSpecs(t *testing.T) []string {
	t.Helper()
	f, err := os.Open("upstream/always.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, regexp.QuoteMeta(line)+`( \[|$)`) // tags such as [Slow] follow
		}
	}
	if err := lines.Err(); err != nil || len(names) == 0 {
		t.Fatalf("no names in always.txt: %v", err)
	}
	return names
}
