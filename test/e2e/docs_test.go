package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// block is a script of a document: what stands in a fence of language sh. A
// label behind the language names a block that another test runs in its turn.
type block struct {
	label, script string
	line          int
}

// blocks returns the scripts of a document in docs/.
func blocks(document string) ([]block, error) {
	f, err := os.Open(filepath.Join(root, "docs", document))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []block
	var open *block
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		fence, text := strings.CutPrefix(lines.Text(), "```")
		switch language, label, _ := strings.Cut(fence, " "); {
		case open != nil && text:
			all, open = append(all, *open), nil
		case open != nil:
			open.script += lines.Text() + "\n"
		case text && language == "sh":
			open = &block{label: label, line: n}
		case text:
			return nil, fmt.Errorf("%s:%d: a block of %q: only sh is run, so write that or indent it", document, n, language)
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
// the helm that is pinned here.
func runDocumented(ctx context.Context, script string, env ...string) (string, error) {
	bin, err := os.MkdirTemp("", "e2e-bin-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	// The images under test are not those of a release.
	helm := fmt.Sprintf("#!/bin/sh\ncase $1 in install | upgrade) set -- \"$@\" %s ;; esac\nexec hack/helm \"$@\"\n",
		strings.Join(imageValues(), " "))
	if err := os.WriteFile(filepath.Join(bin, "helm"), []byte(helm), 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), append(env, "PATH="+bin+":"+os.Getenv("PATH"))...)
	return output(cmd)
}

// TestDocs runs every command of the documents that is not part of another
// test, each document in a namespace of its own.
func TestDocs(t *testing.T) {
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	count := 0
	for _, path := range documents {
		name := filepath.Base(path)
		all, err := blocks(name)
		if err != nil {
			t.Error(err)
		}
		if len(all) == 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s := newSpace(t)
			config := s.kubeconfig()
			for _, b := range all {
				if b.label != "" {
					continue
				}
				count++
				out, err := runDocumented(s.ctx, b.script, "KUBECONFIG="+config, "NODE="+nodes[1])
				if err != nil {
					t.Fatalf("docs/%s:%d: %v", name, b.line, err)
				}
				t.Logf("docs/%s:%d\n%s", name, b.line, out)
			}
		})
	}
	if count == 0 {
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
	script, err := labelled(document, label)
	if err == nil {
		_, err = runDocumented(s.ctx, script, "NODE="+node)
	}
	if err != nil {
		s.Fatal(err)
	}
}

// TestEveryLabelIsRun: a label is not a way to leave a block out.
func TestEveryLabelIsRun(t *testing.T) {
	run := map[string]bool{
		"install.md install": true, "install.md uninstall": true, // main_test.go, uninstall_test.go
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
