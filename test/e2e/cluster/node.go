package cluster

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

var (
	//go:embed node/up.sh
	nodeUp string
	//go:embed node/containerd.toml
	containerdConfig []byte
	//go:embed node/kubelet.yaml
	kubeletConfig []byte
)

const (
	kibibyte   = 1 << 10
	gibibyte   = 1 << 30
	nodeMemory = 2 * gibibyte // touched pages alone take the machine's memory
	nodeDisk   = 16 * gibibyte
	podNet     = "10.79.0.0/16"
)

// Node is a guest with a kubelet.
type Node struct {
	*lab.Guest
	cluster *Cluster
	index   int
	// isolated: kubelet and its pods live in a network namespace of their own,
	// as in a kind node. iscsid does not.
	isolated bool
}

// Address is the node's in the cluster.
func (n *Node) Address() string {
	if n.isolated {
		return fmt.Sprintf("10.77.0.%d", 100+n.index)
	}
	return n.Storage
}

// inNet is a command in kubelet's network namespace.
func (n *Node) inNet(args ...string) []string {
	if n.isolated {
		return append([]string{"nsenter", "--net=/run/netns/kubelet"}, args...)
	}
	return args
}

func nodeName(index int) string             { return fmt.Sprintf("node-%d", index) }
func podNetOf(index int) string             { return fmt.Sprintf("10.79.%d.0/24", index) }
func (n *Node) guestLog(name string) string { return path.Join("/run/lab/share", name+".log") }

// bootNodes boots all guests and makes them nodes.
func (c *Cluster) bootNodes(ctx context.Context) error {
	configs := make([]lab.GuestConfig, c.size)
	for i := range configs {
		name := nodeName(i + 1)
		if err := c.pki.kubeconfig(name, "system:node:"+name, "system:nodes"); err != nil {
			return err
		}
		configs[i] = lab.GuestConfig{Name: name, Memory: nodeMemory, State: nodeDisk, Base: c.base(),
			Keep: []string{containerdStore, "/var/lib/cni", "/var/log/pods"}}
	}
	guests, err := c.lab.BootAll(ctx, configs...)
	if err != nil {
		return err
	}
	for i, guest := range guests {
		c.nodes = append(c.nodes, &Node{Guest: guest, cluster: c, index: i + 1, isolated: c.isolate && i == c.size-1})
	}
	starts, ctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes {
		starts.Go(func() error { return n.start(ctx) })
	}
	return starts.Wait()
}

// PowerOn boots a node that is off.
func (n *Node) PowerOn(ctx context.Context) error {
	if err := n.Guest.PowerOn(ctx); err != nil {
		return err
	}
	return n.start(ctx)
}

// start starts what makes a booted guest a node; the API server hears of it
// when kubelet is up.
func (n *Node) start(ctx context.Context) error {
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"route to its pods", n.route},
		{"preparing", n.prepare},
		{"containerd", n.startContainerd},
		{"kubelet", n.startKubelet},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %s: %w", n.Name, step.name, err)
		}
		n.cluster.say("%s: %s", n.Name, step.name)
	}
	return nil
}

// route leads the control plane's answers to the node's pods.
func (n *Node) route(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "ip", "route", "replace", podNetOf(n.index), "via", n.Address()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (n *Node) prepare(ctx context.Context) error {
	var routes []string
	for _, other := range n.cluster.nodes {
		if other != n {
			routes = append(routes, podNetOf(other.index)+"="+other.Address())
		}
	}
	isolated := ""
	if n.isolated {
		isolated = n.Storage
	}
	_, err := n.Shell(ctx, fmt.Sprintf("GATEWAY=%s PODS=%s ADDRESS=%s ISOLATED=%s ROUTES='%s' enter=\n%s",
		apiServerIP, podNetOf(n.index), n.Address(), isolated, strings.Join(routes, " "), nodeUp))
	if err != nil {
		return err
	}
	for file, from := range map[string]string{
		"ca.crt": "ca.crt", "kubelet.conf": n.Name + ".kubeconfig", "proxy.conf": "proxy.kubeconfig",
	} {
		data, err := os.ReadFile(n.cluster.pki.path(from))
		if err != nil {
			return err
		}
		if err := n.WriteFile(ctx, "/etc/kubernetes/"+file, data, 0o600); err != nil {
			return err
		}
	}
	return n.WriteFile(ctx, "/etc/kubernetes/kubelet.yaml", kubeletConfig, 0)
}

func (n *Node) startContainerd(ctx context.Context) error {
	const config = "/etc/containerd/lab.toml"
	if err := n.WriteFile(ctx, config, containerdConfig, 0); err != nil {
		return err
	}
	_, err := n.Start(ctx, agent.Command{Args: n.inNet("containerd", "-c", config), Env: lessGarbage, Log: n.guestLog("containerd")})
	if err != nil {
		return err
	}
	return awaitContainerd(ctx, n.Machine, "/run/containerd/containerd.sock")
}

// awaitContainerd returns when the machine's containerd answers on its socket.
func awaitContainerd(ctx context.Context, m *lab.Machine, socket string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("containerd does not answer after %v", startTimeout))
	defer cancel()
	return poll(ctx, time.Second, func(ctx context.Context) error {
		_, err := m.Output(ctx, "ctr", "-a", socket, "version")
		return err
	})
}

// lessGarbage trades memory, which the machine and the guests have, for their processors'
// time.
var lessGarbage = []string{"GOGC=400"}

func (n *Node) startKubelet(ctx context.Context) error {
	bin, err := n.cluster.lab.Provide(n.Machine, filepath.Join(n.cluster.programs, "kubelet"), filepath.Join(n.cluster.programs, "kube-proxy"))
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := n.Start(ctx, agent.Command{Log: n.guestLog("kubelet"), Env: lessGarbage, Args: n.inNet(bin+"/kubelet",
			"--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=/etc/kubernetes/kubelet.conf",
			"--hostname-override="+n.Name, "--node-ip="+n.Address(),
			"--housekeeping-interval=1m", "--v=2")})
		return err
	})
	g.Go(func() error {
		_, err := n.Start(ctx, agent.Command{Log: n.guestLog("kube-proxy"), Env: lessGarbage, Args: n.inNet(bin+"/kube-proxy",
			"--kubeconfig=/etc/kubernetes/proxy.conf", "--proxy-mode=iptables", "--hostname-override="+n.Name,
			"--cluster-cidr="+podNet, "--conntrack-max-per-core=0", "--iptables-sync-period=10m",
			"--metrics-bind-address=127.0.0.1:10249", "--v=2")})
		return err
	})
	return g.Wait()
}

// AwaitReady returns when the API server knows the node as Ready in its
// present boot: one that was cut off stays Ready there for most of a minute.
func (n *Node) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not Ready after %v", startTimeout))
	defer cancel()
	boot, err := n.Output(ctx, "cat", "/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	err = poll(ctx, time.Second, func(ctx context.Context) error {
		status, err := n.cluster.Kubectl(ctx, "get", "node", n.Name, "-o",
			`jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.nodeInfo.bootID}`)
		if err == nil && status != "True "+boot {
			err = fmt.Errorf("node %s: Ready and boot are %q", n.Name, status)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w (kubelet's log is kubelet.log of %s)", err, n.Name)
	}
	return nil
}
