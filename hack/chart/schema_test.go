package chart

import (
	"path/filepath"
	"strings"
	"testing"
)

// customKinds come from other people's CRDs, which no schema of Kubernetes has.
var customKinds = []string{"ServiceMonitor"}

// valuesFiles are the values that the chart is rendered with.
func valuesFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/values-*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("values to render with: %v, %v", files, err)
	}
	return files
}

// rendered keeps what helm made of arguments: many tests look at the same, and
// none changes it.
var rendered = map[string][]object{}

func mustRender(t *testing.T, args ...string) []object {
	t.Helper()
	key := strings.Join(args, "\x00")
	if objects, ok := rendered[key]; ok {
		return objects
	}
	objects, err := render(t.Context(), chartDir, args...)
	if err != nil {
		t.Fatal(err)
	}
	rendered[key] = objects
	if len(objects) < 10 {
		t.Fatalf("the chart made %d objects of %v", len(objects), args)
	}
	return objects
}

func mustLoadSchema(t *testing.T, version string) schema {
	t.Helper()
	s, err := loadSchema(version)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func builtIn(o object) bool {
	for _, kind := range customKinds {
		if o.str("kind") == kind {
			return false
		}
	}
	return true
}

func TestChartFitsEveryKubernetes(t *testing.T) {
	for _, version := range kubernetes {
		t.Run(version, func(t *testing.T) {
			s := mustLoadSchema(t, version)
			for _, file := range valuesFiles(t) {
				for _, o := range mustRender(t, "--kube-version", version, "-f", file) {
					if !builtIn(o) {
						continue
					}
					if err := s.validate(o); err != nil {
						t.Errorf("%s: %v", file, err)
					}
				}
			}
		})
	}
}

func TestSchemaIsStrict(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"unknown field", "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}\nspec: {template: {spec: {containers: [{name: a, imagePullPolice: Always}]}}}", "imagePullPolice"},
		{"number for a string", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: 7}", ".spec.type"},
		{"string for a boolean", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {hostPID: \"yes\"}", ".spec.hostPID"},
		{"one port twice", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 1, protocol: TCP}, {port: 1, protocol: TCP}]}", "duplicate"},
		{"no such kind", "apiVersion: apps/v1\nkind: StatefulSets\nmetadata: {name: x}", "has no io.k8s.api.apps.v1.StatefulSets"},
		{"good", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 1, targetPort: http}]}", ""},
	}
	s := mustLoadSchema(t, kubernetes[0])
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			objects, err := parse([]byte(tt.yaml))
			if err != nil || len(objects) != 1 {
				t.Fatal(objects, err)
			}
			err = s.validate(objects[0])
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestVersionsDiffer shows that the schemas are not one and the same.
func TestVersionsDiffer(t *testing.T) {
	const value = "csiDriver.preventPodSchedulingIfMissing=true"
	on137 := mustRender(t, "--kube-version", "1.37.2", "--set", "storage.nodeName=n,"+value)
	driver := find(on137, "CSIDriver", "csi-ietd.io")
	if driver.at("spec", "preventPodSchedulingIfMissing") != true {
		t.Errorf("the value has no effect: %v", driver)
	}
	for version, known := range map[string]bool{"1.35.4": false, "1.36.3": true} {
		if err := mustLoadSchema(t, version).validate(driver); (err == nil) != known {
			t.Errorf("Kubernetes %s on the new field: %v", version, err)
		}
		_, err := render(t.Context(), chartDir, "--kube-version", version, "--set", "storage.nodeName=n,"+value)
		if (err == nil) != known {
			t.Errorf("chart for Kubernetes %s: %v", version, err)
		}
	}
	if _, err := render(t.Context(), chartDir, "--kube-version", "1.33.9", "--set", "storage.nodeName=n"); err == nil {
		t.Error("the chart renders for Kubernetes 1.33, which nobody has validated it for")
	}
}
