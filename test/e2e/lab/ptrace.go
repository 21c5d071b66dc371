package lab

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A guest's kernel is User Mode Linux with c/ptrace.c before its libc.
//
//go:embed c/ptrace.c
var ptraceSource string

const ptraceName = "ptrace.so"

// buildPtrace builds it into dir.
func buildPtrace(dir string) error {
	cc := exec.Command("cc", "-O2", "-shared", "-fPIC", "-o", filepath.Join(dir, ptraceName), "-xc", "-")
	cc.Stdin = strings.NewReader(ptraceSource)
	if out, err := cc.CombinedOutput(); err != nil {
		return fmt.Errorf("cc of ptrace.c: %w: %s", err, out)
	}
	return nil
}

// withPtrace is the environment that a guest's kernel is started in.
func (l *Lab) withPtrace() []string {
	return append(os.Environ(), "LD_PRELOAD="+filepath.Join(l.root, "bin", ptraceName))
}
