package e2e

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
)

// TestUpgrade comes from the chart of the last release while a pod writes:
// its volume goes on, through the replacement of the storage node too, and back. The
// new storage node's target asks for PR_SET_IO_FLUSHER, for which it is root.
func TestUpgrade(t *testing.T) {
	charts, err := filepath.Glob(root + "/charts/testdata/csi-ietd-*.tgz")
	if err != nil || len(charts) == 0 {
		t.Fatalf("no chart of an earlier release: %v", err)
	}
	last := slices.MaxFunc(charts, func(a, b string) int {
		if chartVersion(t, a).LessThan(chartVersion(t, b)) {
			return -1
		}
		return 1
	})
	s := newSpace(t)
	s.claim("data", "256Mi")
	s.deploy("logger", "data", running(logger))
	pod := s.awaitOn("logger", nodes[1], true)
	before := s.lines(pod)
	step := func(what string, do func()) {
		t.Helper()
		do()
		await(t, func() error { return s.more(pod, before) })
		lines := s.lines(pod)
		t.Logf("%s: lines %d to %d, the longest pause %v", what, before, lines, s.longestPause(pod))
		before = lines
	}

	step("the chart of "+filepath.Base(last), func() {
		if _, err := helm(s.ctx, "upgrade", release, last, "--namespace", system, "--reset-then-reuse-values", "--wait", "--timeout=5m"); err != nil {
			t.Fatal(err)
		}
	})
	step("its storage node", func() { s.documented("upgrade.md", "replace", "") })
	storage := podIDs(t, "app.kubernetes.io/component=storage")
	upgrade := func(value string) func() {
		return func() {
			if err := documented(s.ctx, "upgrade.md", "upgrade", "E2E_VALUES="+os.Getenv("E2E_VALUES")+" --set "+value); err != nil {
				t.Fatal(err)
			}
		}
	}
	step("upgrade", upgrade("storage.ioFlusher=true"))
	for id := range podIDs(t, "app.kubernetes.io/component=storage") {
		if _, same := storage[id]; !same {
			t.Error("the upgrade replaced the storage node's pod, which the operator is to do")
		}
	}
	step("replace", func() { s.documented("upgrade.md", "replace", "") })
	log, err := kubectl(s.ctx, "", "-n", system, "logs", "csi-ietd-storage-0", "-c", "controller")
	if err != nil || !strings.Contains(log, "Serving") || strings.Contains(log, "PR_SET_IO_FLUSHER refused") {
		t.Errorf("with storage.ioFlusher: %v\n%s", err, log)
	}
	step("rollback", func() { s.documented("upgrade.md", "rollback", "") })
	step("upgrade again", upgrade("storage.ioFlusher=false"))
	s.leave()
}

func chartVersion(t *testing.T, file string) *version.Version {
	t.Helper()
	name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "csi-ietd-"), ".tgz")
	v, err := version.ParseSemantic(name)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return v
}

// longestPause is the longest time between two lines of a pod's log, which
// kubelet stamps.
func (s *space) longestPause(pod string) time.Duration {
	s.Helper()
	out, err := kubectl(s.ctx, "", "-n", s.name, "logs", pod, "--timestamps")
	if err != nil {
		s.Fatal(err)
	}
	var longest time.Duration
	var last time.Time
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		stamp, _, _ := strings.Cut(lines.Text(), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			s.Fatal(err)
		}
		if !last.IsZero() {
			longest = max(longest, at.Sub(last))
		}
		last = at
	}
	return longest.Round(100 * time.Millisecond)
}
