package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// block is a script of a document: what stands in a fence of language sh. A
// label behind the language names a block that another test runs in its turn.
type block struct {
	label, script string
	line          int
}

// blocks returns the scripts of a document in docs/. A fence of any language
// but sh, and text for pictures, is an error: it might be meant to be run.
func blocks(document string) ([]block, error) {
	f, err := os.Open(filepath.Join(root, "docs", document))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []block
	var open *block
	language := ""
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		info, fence := strings.CutPrefix(lines.Text(), "```")
		switch {
		case fence && open == nil:
			open = &block{line: n}
			if language, open.label, _ = strings.Cut(info, " "); language != "sh" && language != "text" {
				return nil, fmt.Errorf("%s:%d: a block of %q: only sh is run, so write that, or text for a picture", document, n, language)
			}
		case fence:
			if language == "sh" {
				all = append(all, *open)
			}
			open = nil
		case open != nil:
			open.script += lines.Text() + "\n"
		}
	}
	return all, lines.Err()
}

// labelled returns a document's block of that label.
func labelled(document, label string) (string, error) {
	all, err := blocks(document)
	if err != nil {
		return "", err
	}
	for _, b := range all {
		if b.label == label {
			return b.script, nil
		}
	}
	return "", fmt.Errorf("docs/%s has no block %q", document, label)
}

// runDocumented runs a block as a user would, from the repository's root, with
// the helm that is pinned here. E2E_VALUES are flags of helm for what a cluster
// wants besides, as kind does.
func runDocumented(ctx context.Context, script string, env ...string) (string, error) {
	bin, err := os.MkdirTemp("", "e2e-bin-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	if err := os.WriteFile(filepath.Join(bin, "helm"), []byte(helmShim), 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), append(env, "PATH="+bin+":"+os.Getenv("PATH"))...)
	return output(cmd)
}

const helmShim = `#!/bin/sh
case $1 in install | upgrade) set -- "$@" $E2E_VALUES ;; esac
exec hack/helm "$@"
`

// documented runs a labelled block in its turn.
func documented(ctx context.Context, document, label string, env ...string) error {
	script, err := labelled(document, label)
	if err != nil {
		return err
	}
	if _, err := runDocumented(ctx, script, append([]string{"NODE=" + storageNode}, env...)...); err != nil {
		return fmt.Errorf("docs/%s, %s: %w", document, label, err)
	}
	return nil
}

// TestDocs runs every command of the documents that is not part of another
// test, each document in a namespace of its own.
func TestDocs(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	scripts := 0
	for _, path := range documents {
		name := filepath.Base(path)
		all, err := blocks(name)
		if err != nil {
			t.Error(err)
		}
		all = slices.DeleteFunc(all, func(b block) bool { return b.label != "" })
		if len(all) == 0 {
			continue
		}
		scripts += len(all)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			config := s.kubeconfig()
			for _, b := range all {
				out, err := runDocumented(s.ctx, b.script, "KUBECONFIG="+config, "NODE="+nodes[1])
				if err != nil {
					t.Fatalf("docs/%s:%d: %v", name, b.line, err)
				}
				t.Logf("docs/%s:%d\n%s", name, b.line, out)
			}
		})
	}
	if scripts == 0 {
		t.Error("no block was run")
	}
}

// kubeconfig is the cluster's with the test's namespace as the default.
func (s *space) kubeconfig() string {
	s.Helper()
	text, err := kubectl(s.ctx, "", "config", "view", "--raw", "--flatten")
	if err != nil {
		s.Fatal(err)
	}
	file := filepath.Join(s.TempDir(), "config")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	if _, err := kubectl(s.ctx, "", "--kubeconfig", file, "config", "set-context", "--current", "--namespace", s.name); err != nil {
		s.Fatal(err)
	}
	return file
}

// documented runs the labelled block of a document in its turn.
func (s *space) documented(document, label, node string) {
	s.Helper()
	if err := documented(s.ctx, document, label, "NODE="+node); err != nil {
		s.Fatal(err)
	}
}

// TestReadme: the way in that the READMEs show is the one that is run.
func TestReadme(t *testing.T) {
	long, err := labelled("install.md", "install")
	if err != nil {
		t.Fatal(err)
	}
	for _, readme := range []string{"../README.md", "../charts/csi-ietd/README.md"} {
		if short, err := labelled(readme, "install"); short != long {
			t.Errorf("%s installs by\n%s\ndocs/install.md by\n%s%v", readme, short, long, err)
		}
	}
}

// TestEveryLabelIsRun: a label is not a way to leave a block out.
func TestEveryLabelIsRun(t *testing.T) {
	run := map[string]bool{
		"install.md install": true, "install.md uninstall": true, "kubernetes.md remove": true, // main_test.go, uninstall_test.go
		"install.md push":     true, // hack/image
		"kubernetes.md apply": true, "install.md first": true, "install.md first-away": true, "install.md claim": true,
		"upgrade.md upgrade": true, "upgrade.md replace": true, "upgrade.md rollback": true, // TestUpgrade
		"node-failure.md out-of-service": true, "node-failure.md back-in-service": true, // TestNodeLost
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range documents {
		all, err := blocks(filepath.Base(path))
		if err != nil {
			t.Error(err)
		}
		for _, b := range all {
			if b.label != "" && !run[filepath.Base(path)+" "+b.label] {
				t.Errorf("%s:%d: no test runs %q", path, b.line, b.label)
			}
		}
	}
}
