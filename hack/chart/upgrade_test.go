package chart

import (
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestUpgradeFromReleases renders every released chart in charts/testdata and
// this one with the same values: what Kubernetes lets nobody change must be
// the same.
func TestUpgradeFromReleases(t *testing.T) {
	charts, err := filepath.Glob(released + "/csi-ietd-*.tgz")
	if err != nil {
		t.Fatal(err)
	}
	for _, old := range charts {
		t.Run(filepath.Base(old), func(t *testing.T) {
			for _, values := range []string{"testdata/values-hostpath.yaml", "testdata/values-pvc.yaml"} {
				before, err := render(t.Context(), old, "-f", values)
				if err != nil {
					t.Fatal(err)
				}
				for _, err := range upgradeErrors(before, mustRender(t, "-f", values)) {
					t.Errorf("%s: %v", values, err)
				}
			}
		})
	}
}

// TestEveryReleaseIsKept: from the commit after it on, a tag without its chart in charts/testdata could not
// be upgraded from in a test.
func TestEveryReleaseIsKept(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "tag", "--merged", "HEAD", "--no-contains", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	release := regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+$`)
	for _, tag := range strings.Fields(string(out)) {
		chart := released + "/csi-ietd-" + strings.TrimPrefix(tag, "v") + ".tgz"
		if release.MatchString(tag) && !isFile(chart) {
			t.Errorf("%s is tagged and %s is not there: run hack/chart/keep %s and commit it", tag, chart, tag)
		}
	}
}

func isFile(path string) bool {
	matches, err := filepath.Glob(path)
	return err == nil && len(matches) == 1
}

func TestUpgradeErrors(t *testing.T) {
	before := mustRender(t, "-f", "testdata/values-pvc.yaml")
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"same", []string{"-f", "testdata/values-pvc.yaml", "--set", "logLevel=5,storage.port=3261"}, nil},
		{"other names", []string{"-f", "testdata/values-pvc.yaml", "--set", "fullnameOverride=other"},
			[]string{"StatefulSet csi-ietd-storage is gone", "DaemonSet csi-ietd-node is gone"}},
		{"larger claim", []string{"-f", "testdata/values-pvc.yaml", "--set", "storage.pool.persistentVolumeClaim.size=2Ti"},
			[]string{"StatefulSet csi-ietd-storage: [spec volumeClaimTemplates]"}},
		{"other class", []string{"-f", "testdata/values-pvc.yaml", "--set", "storageClasses[0].name=csi-ietd,storageClasses[0].reclaimPolicy=Retain"},
			[]string{"StorageClass csi-ietd: [reclaimPolicy] was Delete and is Retain"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			errs := upgradeErrors(before, mustRender(t, tt.args...))
			text := errors.Join(errs...)
			if len(errs) != len(tt.want) {
				t.Errorf("%d errors, want %d: %v", len(errs), len(tt.want), text)
			}
			for _, want := range tt.want {
				if !slices.ContainsFunc(errs, func(err error) bool { return strings.HasPrefix(err.Error(), want) }) {
					t.Errorf("no %q in %v", want, text)
				}
			}
		})
	}
}

// TestKeep packs the chart of the last commit, as a release does.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "./keep", "HEAD", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	packed, err := filepath.Glob(dir + "/csi-ietd-*.tgz")
	if err != nil || len(packed) != 1 {
		t.Fatalf("%v: %v", packed, err)
	}
	if _, err := render(t.Context(), packed[0], "-f", "testdata/values-hostpath.yaml"); err != nil {
		t.Error(err)
	}
}
