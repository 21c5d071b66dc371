package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m.Run)) }

// newLab makes a lab that ends with the test.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.New(t.Context(), lab.Config{Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// boot boots n guests at once, node-1 and up, each made as cfg says.
func boot(t *testing.T, l *lab.Lab, n int, cfg lab.GuestConfig) []*lab.Guest {
	t.Helper()
	guests, errs := make([]*lab.Guest, n), make(chan error, n)
	for i := range n {
		go func() {
			cfg := cfg
			cfg.Name = fmt.Sprintf("node-%d", i+1)
			var err error
			guests[i], err = l.Boot(t.Context(), cfg)
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	return guests
}

// shell runs a script on a machine and fails the test when it fails.
func shell(t *testing.T, m *lab.Machine, script string) string {
	t.Helper()
	out, err := m.Shell(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
