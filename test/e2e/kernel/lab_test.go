package kernel

import (
	"context"
	"fmt"
	"os"
	"strings"
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
		if err := l.CheckSecrets(context.Background()); err != nil {
			t.Error(err)
		}
		t.Logf("%d secrets of records were seen nowhere else", len(l.Secrets.Minted()))
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// newPlainLab makes a lab in which nobody has secrets to watch: its guests have
// their processor for themselves.
func newPlainLab(t *testing.T) *lab.Lab {
	t.Helper()
	l, err := lab.New(t.Context(), lab.Config{Name: t.Name(), Unwatched: true})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// boot boots n guests at once, node-1 and up, each made as cfg says.
func boot(t *testing.T, l *lab.Lab, n int, cfg lab.GuestConfig) []*lab.Guest {
	t.Helper()
	configs := make([]lab.GuestConfig, n)
	for i := range configs {
		configs[i] = cfg
		configs[i].Name = fmt.Sprintf("node-%d", i+1)
	}
	guests, err := l.BootAll(t.Context(), configs...)
	if err != nil {
		t.Fatal(err)
	}
	return guests
}

// cluster is a controller outside and a node in each of some guests.
type cluster struct {
	lab        *lab.Lab
	controller *lab.Controller
	nodes      []*lab.Node
}

// Flags of nodes. A user would want I/O to wait for a lost target much longer;
// the impatient node is for tests that take it away for good, and wait for the
// I/O's end.
var (
	patient   = []string{"--detach-grace=3s", "--replacement-timeout=60s"}
	impatient = []string{"--detach-grace=3s", "--replacement-timeout=10s"}
)

// newCluster starts a node with each of these flags.
func newCluster(t *testing.T, flags ...[]string) *cluster {
	t.Helper()
	c := &cluster{lab: newLab(t)}
	var err error
	if c.controller, err = c.lab.StartController(t.Context(), c.lab.Outside); err != nil {
		t.Fatal(err)
	}
	for i, g := range boot(t, c.lab, len(flags), lab.GuestConfig{State: 256 << 20}) {
		n, err := c.lab.StartNode(t.Context(), g, flags[i]...)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, n)
	}
	return c
}

// create makes a volume whose name is the test's, and the claim's if it has one.
func (c *cluster) create(t *testing.T, claim lab.Claim) *lab.Volume {
	t.Helper()
	claim.Name = "pvc-" + strings.NewReplacer("/", "-", "_", "-").Replace(strings.ToLower(t.Name()+claim.Name))
	v, err := c.controller.Create(t.Context(), claim)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// must fails the test unless a step went well.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func attach(t *testing.T, v *lab.Volume, n *lab.Node, pod string) string {
	t.Helper()
	path, err := v.Attach(t.Context(), n, pod)
	must(t, err)
	return path
}

// checkClean fails the test if the node still has a session, a record of one,
// a SCSI disk, or a mount of ours.
func checkClean(t *testing.T, n *lab.Node) {
	t.Helper()
	left := shell(t, n.Guest.Machine, `
		ls -A /sys/class/iscsi_session
		ls -A /etc/iscsi/nodes
		ls -A /sys/class/scsi_disk
		grep -E 'kubernetes.io.csi' /proc/mounts || true`)
	if left != "" {
		t.Errorf("left on %s:\n%s", n.Guest.Name, left)
	}
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
