package chart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	kyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// The repository's files as seen from this package.
const (
	root      = "../.."
	chartDir  = root + "/charts/csi-ietd"
	manifests = root + "/deploy/kubernetes"
	released  = root + "/charts/testdata"
)

// object is one Kubernetes object.
type object map[string]any

// render returns the objects of a chart, as helm makes them of these arguments
// for the release csi-ietd in the namespace csi-ietd.
func render(ctx context.Context, chart string, args ...string) ([]object, error) {
	return renderAs(ctx, "csi-ietd", chart, args...)
}

func renderAs(ctx context.Context, release, chart string, args ...string) ([]object, error) {
	args = append([]string{"template", release, chart, "--namespace", "csi-ietd"}, args...)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, root+"/hack/helm", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("helm: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return parse(stdout.Bytes())
}

// parse returns the objects of a stream of YAML documents; a key that is given
// twice is an error.
func parse(stream []byte) ([]object, error) {
	var objects []object
	decoder := kyaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(stream)))
	defer decoder.Close()
	document := make([]byte, len(stream)+1)
	for {
		n, err := decoder.Read(document)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		var o object
		if err := yaml.UnmarshalStrict(document[:n], &o); err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, document[:n])
		}
		if len(o) > 0 {
			objects = append(objects, o)
		}
	}
}

// name is "Kind name", for messages.
func (o object) name() string { return o.str("kind") + " " + o.str("metadata", "name") }

// at returns the value at a path of keys, or nil.
func (o object) at(path ...string) any {
	var v any = map[string]any(o)
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func (o object) str(path ...string) string {
	s, _ := o.at(path...).(string)
	return s
}

// list returns the objects of a list at a path.
func (o object) list(path ...string) []object {
	values, _ := o.at(path...).([]any)
	var objects []object
	for _, v := range values {
		if m, ok := v.(map[string]any); ok {
			objects = append(objects, m)
		}
	}
	return objects
}

// strs returns the strings of a list at a path.
func (o object) strs(path ...string) []string {
	values, _ := o.at(path...).([]any)
	var list []string
	for _, v := range values {
		list = append(list, fmt.Sprint(v))
	}
	return list
}

// podSpec is the pod that an object is or makes, or nil.
func (o object) podSpec() object {
	path := []string{"spec", "template", "spec"}
	if o.str("kind") == "Pod" {
		path = []string{"spec"}
	}
	m, _ := o.at(path...).(map[string]any)
	if m["containers"] == nil {
		return nil
	}
	return m
}

// find returns the object of that kind and name, or nil.
func find(objects []object, kind, name string) object {
	for _, o := range objects {
		if o.str("kind") == kind && o.str("metadata", "name") == name {
			return o
		}
	}
	return nil
}
