package chart

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func TestManifestsAreInStep(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "./generate", "-check").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestManifestsAreWhole: kustomize takes them, with every file, and every
// Kubernetes takes what comes out.
func TestManifestsAreWhole(t *testing.T) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), manifests)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := resources.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := parse(stream)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range kubernetes {
		s := mustLoadSchema(t, version)
		for _, o := range objects {
			if err := s.validate(o); err != nil {
				t.Errorf("Kubernetes %s: %v", version, err)
			}
		}
	}
	if find(objects, "Namespace", "csi-ietd").str("metadata", "labels", "pod-security.kubernetes.io/enforce") != "privileged" {
		t.Error("the namespace keeps the node plugin out")
	}
	for _, o := range mustRender(t, "-f", "manifests-values.yaml") {
		if o.str("kind") != "Pod" && find(objects, o.str("kind"), o.str("metadata", "name")) == nil {
			t.Errorf("%s of the chart is not in the manifests", o.name())
		}
	}
}

func TestManifestsListEveryFile(t *testing.T) {
	entries, err := os.ReadDir(manifests)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(manifests + "/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Fields(string(text))
	for _, e := range entries {
		if e.Name() != "kustomization.yaml" && !slices.Contains(listed, e.Name()) {
			t.Errorf("kustomization.yaml does not list %s", e.Name())
		}
	}
}
