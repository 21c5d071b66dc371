package chart

import (
	"os/exec"
	"strings"
	"testing"
)

// TestFlagsExist: every flag that the chart gives csi-ietd is one that the
// binary of this tree has.
func TestFlagsExist(t *testing.T) {
	for _, role := range []string{"controller", "node"} {
		cmd := exec.CommandContext(t.Context(), "go", "run", "./cmd/csi-ietd", role, "--help")
		cmd.Dir = root
		help, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, help)
		}
		known := map[string]bool{"-v": true}
		for _, word := range strings.Fields(string(help)) {
			known[strings.TrimSuffix(word, ",")] = true
		}
		t.Run(role, func(t *testing.T) {
			forEveryValues(t, func(t *testing.T, objects []object) {
				checkFlags(t, objects, role, known)
			})
		})
	}
}

func checkFlags(t *testing.T, objects []object, role string, known map[string]bool) {
	n := 0
	for _, o := range objects {
		for _, c := range o.podSpec().list("containers") {
			if c.str("name") != role {
				continue
			}
			args := c.strs("args")
			if args[0] != role {
				t.Errorf("%s runs csi-ietd %s", role, args[0])
			}
			for _, arg := range args[1:] {
				n++
				if flag, _, _ := strings.Cut(arg, "="); !known[flag] {
					t.Errorf("csi-ietd %s has no flag %s", role, flag)
				}
			}
		}
	}
	if n < 5 {
		t.Errorf("%s is given %d flags", role, n)
	}
}
