package main

import (
	"bytes"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestPushedImageIsTheArchives(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(discardLog)))
	defer server.Close()
	repository := strings.TrimPrefix(server.URL, "http://") + "/team/tool"

	file, printed := archiveOf(t, "-platform", "linux/amd64="+testTree(t), "-platform", "linux/arm64="+t.TempDir())
	_, digest, _ := strings.Cut(printed, "@")
	var out bytes.Buffer
	must(t, run([]string{"push", "-archive", file, "-ref", repository + ":v9"}, &out))
	if got, want := strings.TrimSpace(out.String()), repository+"@"+digest; got != want {
		t.Errorf("printed %s, want %s", got, want)
	}
	for _, ref := range []string{repository + ":v9", repository + "@" + digest} {
		r, err := name.ParseReference(ref)
		must(t, err)
		index, err := remote.Index(r)
		must(t, err)
		must(t, validate.Index(index))
		if got, err := index.Digest(); err != nil || got.String() != digest {
			t.Errorf("%s: the registry has %s (%v), want %s", ref, got, err, digest)
		}
	}
}

func TestPushRefuses(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "garbage.tar")
	must(t, os.WriteFile(garbage, bytes.Repeat([]byte("x"), 2048), 0o600))
	archive, _ := archiveOf(t, "-platform", "linux/amd64="+t.TempDir())
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no archive": {nil, "no such file"},
		"not a tar":  {[]string{"-archive", garbage}, garbage},
		"no tag":     {[]string{"-archive", archive, "-ref", "registry.example/x"}, "tag must be"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(append([]string{"push"}, test.args...), io.Discard)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one about %q", err, test.want)
			}
		})
	}
}

// TestDocumentedPush runs what docs/install.md says, for one platform.
func TestDocumentedPush(t *testing.T) {
	text, err := os.ReadFile("../../docs/install.md")
	must(t, err)
	script := regexp.MustCompile("(?s)```sh push\n(.*?)```").FindSubmatch(text)
	if script == nil {
		t.Fatal("docs/install.md has no block sh push")
	}
	server := httptest.NewServer(registry.New(registry.Logger(discardLog)))
	t.Cleanup(server.Close)
	repository := strings.TrimPrefix(server.URL, "http://") + "/mine"
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", string(script[1]))
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "REGISTRY="+repository, "PLATFORMS=linux/amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, image := range []string{"csi-ietd", "csi-ietd-node"} {
		ref, err := name.ParseReference(repository + "/" + image + ":v0.1.0")
		must(t, err)
		_, err = remote.Index(ref)
		must(t, err)
	}
}
