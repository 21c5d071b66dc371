package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestUpstream runs the specs of Kubernetes' own suite for storage drivers
// that upstream/always.txt names; `make e2e-upstream` runs the whole of it.
func TestUpstream(t *testing.T) {
	t.Parallel()
	upstreamAlways(t, 4, slices.DeleteFunc(upstreamSpecs(t, "always.txt"), stress))
}

// TestUpstreamStress runs the longest of them by itself, to begin at once: the
// suite shuffles.
func TestUpstreamStress(t *testing.T) {
	t.Parallel()
	upstreamAlways(t, 1, slices.DeleteFunc(upstreamSpecs(t, "always.txt"), func(s string) bool { return !stress(s) }))
}

func stress(spec string) bool { return strings.Contains(spec, "stress") }

func upstreamAlways(t *testing.T, procs int, specs []string) {
	t.Helper()
	ran := upstream(t, io.Discard, fmt.Sprint("--procs=", procs), "--timeout=20m", "--focus="+strings.Join(specs, "|"))
	if ran != len(specs) {
		t.Errorf("%d specs ran, of %d that upstream/always.txt names", ran, len(specs))
	}
}

// upstream runs Kubernetes' own suite, which E2E_UPSTREAM names, by the ginkgo
// beside it, and returns how many specs ran. What it prints goes to log too.
func upstream(t *testing.T, log io.Writer, args ...string) int {
	t.Helper()
	program := os.Getenv("E2E_UPSTREAM")
	if program == "" {
		t.Fatal("E2E_UPSTREAM names no program: test/e2e/run sets it")
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(program), "ginkgo"), append(args, "--no-color", program, "--",
		"-provider=skeleton", "-kubeconfig="+os.Getenv("KUBECONFIG"), "-storage.testdriver="+filepath.Join(cwd, "upstream/testdriver.yaml"))...)
	cmd.Stdout = io.MultiWriter(&out, log)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	ran := regexp.MustCompile(`(?m)^Ran (\d+) of \d+ Specs.*\n.*$`).FindStringSubmatch(out.String())
	if ran == nil {
		t.Fatalf("no summary in:\n%s", &out)
	}
	t.Log(ran[0])
	count, err := strconv.Atoi(ran[1])
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// upstreamSpecs are the names in a file of upstream/, each as an expression
// that matches it alone.
func upstreamSpecs(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join("upstream", file))
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
		t.Fatalf("no names in %s: %v", file, err)
	}
	return names
}
