package chart

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// schema is what one version of Kubernetes knows of its objects.
type schema struct{ parser *typed.Parser }

// loadSchema returns the schema of a Kubernetes version, 1.x.y. The module that
// holds it is fetched into Go's module cache the first time.
func loadSchema(version string) (schema, error) {
	minor, ok := strings.CutPrefix(version, "1.")
	if !ok {
		return schema{}, fmt.Errorf("kubernetes version %q is not 1.x.y", version)
	}
	dir, err := moduleDir("k8s.io/client-go@v0." + minor)
	if err != nil {
		return schema{}, err
	}
	source, err := os.ReadFile(filepath.Join(dir, "applyconfigurations/internal/internal.go"))
	if err != nil {
		return schema{}, err
	}
	// The schema is one raw string of that file.
	_, rest, found := strings.Cut(string(source), "schemaYAML = typed.YAMLObject(`")
	text, _, closed := strings.Cut(rest, "`)")
	if !found || !closed {
		return schema{}, fmt.Errorf("client-go of Kubernetes %s has its schema elsewhere", version)
	}
	parser, err := typed.NewParser(typed.YAMLObject(text))
	return schema{parser}, err
}

func moduleDir(module string) (string, error) {
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	var got struct{ Dir, Error string }
	if decodeErr := json.Unmarshal(out, &got); decodeErr != nil {
		return "", fmt.Errorf("go mod download %s: %w", module, errors.Join(err, decodeErr))
	}
	if got.Error != "" {
		return "", fmt.Errorf("go mod download %s: %s", module, got.Error)
	}
	return got.Dir, err
}

// validate returns what is wrong with an object, with the path of the field.
func (s schema) validate(o object) error {
	name := typeName(o.str("apiVersion"), o.str("kind"))
	kind := s.parser.Type(name)
	if !kind.IsValid() {
		return fmt.Errorf("%s: this version has no %s", o.name(), name)
	}
	if _, err := kind.FromUnstructured(map[string]any(o)); err != nil {
		return fmt.Errorf("%s: %w", o.name(), err)
	}
	return nil
}

// typeName is the name of a type in the schema: io.k8s.api.apps.v1.DaemonSet.
func typeName(apiVersion, kind string) string {
	group, version, ok := strings.Cut(apiVersion, "/")
	if !ok {
		group, version = "core", apiVersion
	}
	group, _, _ = strings.Cut(group, ".")
	return "io.k8s.api." + group + "." + version + "." + kind
}
