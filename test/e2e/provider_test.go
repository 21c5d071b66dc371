package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// provider does to a machine what the Kubernetes API cannot: the program that
// E2E_PROVIDER names is run as `PROGRAM node kill|start|cut|restore NAME`, and
// `PROGRAM node exec NAME COMMAND...`. The lab's cluster sets it; for a
// cluster without one, leave out the tests that say so: see README.md.
func provider(ctx context.Context, args ...string) (string, error) {
	program := os.Getenv("E2E_PROVIDER")
	if program == "" {
		return "", fmt.Errorf("E2E_PROVIDER names no program that can %v; leave this test out with -skip on such a cluster", args)
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"node"}, args...)...)
	cmd.Dir = filepath.Clean(root)
	return output(cmd)
}

func (s *space) provider(args ...string) string {
	s.Helper()
	out, err := provider(s.ctx, args...)
	if err != nil {
		s.Fatal(err)
	}
	return out
}
