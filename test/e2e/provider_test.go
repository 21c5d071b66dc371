package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// provider does to a machine what the Kubernetes API cannot: the program that
// E2E_PROVIDER names is run as `PROGRAM node kill|start|cut|restore NAME`, and
// `PROGRAM node exec NAME COMMAND...`. The lab's cluster sets it; for a
// cluster without one, leave out the tests that say so: see README.md.
func (s *space) provider(args ...string) string {
	s.Helper()
	program := os.Getenv("E2E_PROVIDER")
	if program == "" {
		s.Fatal("E2E_PROVIDER names no program that can " + fmt.Sprint(args) + "; leave this test out with -skip on such a cluster")
	}
	cmd := exec.CommandContext(s.ctx, program, append([]string{"node"}, args...)...)
	cmd.Dir = filepath.Clean(root)
	out, err := output(cmd)
	if err != nil {
		s.Fatal(err)
	}
	return out
}
