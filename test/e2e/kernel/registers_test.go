package kernel

import (
	_ "embed"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

//go:embed c/registers.c
var registers string

// testRegisters: threads of a guest's program keep their vector registers, which its kernel
// saves and sets through lab/c/ptrace.c.
func testRegisters(t *testing.T, l *lab.Lab, g *lab.Guest) {
	program := filepath.Join(t.TempDir(), "registers")
	cc := exec.Command("cc", "-O1", "-static", "-o", program, "-xc", "-", "-xnone", "-lpthread")
	cc.Stdin = strings.NewReader(registers)
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("cc of registers.c: %v: %s", err, out)
	}
	bin, err := l.Provide(g.Machine, program)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(shell(t, g.Machine, filepath.Join(bin, "registers")))
}
