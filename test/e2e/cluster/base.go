package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

// containerdStore is where a node's containerd keeps its images; the same
// snapshotter fills it here and reads it there.
const containerdStore = "/var/lib/containerd"

// base is the disk that every node begins with: the images are in containerd's
// store.
func (c *Cluster) base() string { return filepath.Join(c.lab.Dir(), "base.ext4") }

// makeBase makes that disk with a containerd outside the guests, which imports
// in a second what takes a guest half a minute.
func (c *Cluster) makeBase(ctx context.Context) error {
	work := filepath.Join(c.lab.Dir(), "base")
	tree := filepath.Join(work, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	if err := c.importImages(ctx, work, filepath.Join(tree, containerdStore)); err != nil {
		return err
	}
	_, err := c.lab.Outside.Output(ctx, "mkfs.ext4", "-q", "-d", tree, c.base(), strconv.Itoa(nodeDisk/kibibyte)+"k")
	if err != nil {
		return err
	}
	c.say("the nodes' images")
	return os.RemoveAll(work)
}

// importImages imports the archives with a containerd that has its root in
// store and all else in work.
func (c *Cluster) importImages(ctx context.Context, work, store string) error {
	config := filepath.Join(work, "containerd.toml")
	socket := filepath.Join(work, "containerd.sock")
	// The plugins left out would want a network, or make /opt/containerd.
	err := os.WriteFile(config, fmt.Appendf(nil, "version = 2\nroot = %q\nstate = %q\n"+
		"disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = %q\n",
		store, filepath.Join(work, "run"), socket), 0o644)
	if err != nil {
		return err
	}
	containerd, err := c.lab.Outside.Start(ctx, agent.Command{
		Args: []string{"containerd", "-c", config}, Log: filepath.Join(c.lab.Dir(), "outside", "containerd.log"),
	})
	if err != nil {
		return err
	}
	if err := awaitContainerd(ctx, c.lab.Outside, socket); err != nil {
		return err
	}
	for _, archive := range c.images {
		if _, err := c.lab.Outside.Output(ctx, "ctr", "-a", socket, "-n", "k8s.io", "images", "import", archive); err != nil {
			return err
		}
	}
	if err := containerd.Signal(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	_, err = containerd.Wait(ctx)
	return err
}
