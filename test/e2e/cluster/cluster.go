package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// startTimeout is how long any one part may take to answer on a busy machine.
const startTimeout = 3 * time.Minute

// Config of a cluster.
type Config struct {
	Nodes    int       // how many, 1 to 200
	Isolate  bool      // the last has kubelet and its pods in a network namespace of their own, as in a kind node
	Programs string    // directory with Kubernetes' programs
	Images   []string  // archives of what every node has
	Progress io.Writer // is told what has been done
}

// Cluster is a running cluster.
type Cluster struct {
	lab      *lab.Lab
	size     int
	isolate  bool
	programs string
	images   []string
	pki      *pki
	began    time.Time
	progress io.Writer
	nodes    []*Node
}

// Up makes a cluster and returns when all its nodes are Ready. The program
// must have been started through [lab.Main].
func Up(ctx context.Context, cfg Config) (*Cluster, error) {
	l, err := lab.New(ctx, lab.Config{Name: "cluster", Unwatched: true})
	if err != nil {
		return nil, err
	}
	c := &Cluster{lab: l, size: cfg.Nodes, isolate: cfg.Isolate, programs: cfg.Programs, images: cfg.Images,
		began: time.Now(), progress: cfg.Progress}
	if err := c.up(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// up boots the nodes while the control plane starts.
func (c *Cluster) up(ctx context.Context) error {
	if err := c.certificates(); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := c.startControlPlane(gctx)
		c.say("control plane")
		return err
	})
	g.Go(func() error {
		if err := c.makeBase(gctx); err != nil {
			return fmt.Errorf("the nodes' images: %w", err)
		}
		return c.bootNodes(gctx)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := n.AwaitReady(ctx); err != nil {
			return err
		}
		c.say("%s: Ready", n.Name)
	}
	return nil
}

func (c *Cluster) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.progress, "%5.1f s  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// Node returns the node of that name.
func (c *Cluster) Node(name string) (*Node, error) {
	for _, n := range c.nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("there is no node %s", name)
}

// Kubectl runs kubectl as the administrator and returns its output.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	var out, errs strings.Builder
	cmd := exec.CommandContext(ctx, c.programs+"/kubectl", args...)
	cmd.Env = append(os.Environ(), c.KubectlEnv()...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Close cuts the nodes' power and ends the control plane.
func (c *Cluster) Close() error { return c.lab.Close() }
