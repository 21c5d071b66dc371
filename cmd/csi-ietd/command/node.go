package command

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	storagev1client "k8s.io/client-go/kubernetes/typed/storage/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/driver"
	"github.com/csi-ietd/csi-ietd/pkg/driver/metrics"
)

func newNodeCommand() *cobra.Command {
	o := driver.DefaultNodeOptions()
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Serve CSI's node: attach, format, mount and grow volumes on this machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			return runNode(cmd.Context(), o)
		},
	}
	o.AddFlags(cmd.Flags())
	addLogFlags(cmd)
	return cmd
}

// runNode serves until ctx ends. What the machine lacks is told once here and
// by every Probe; it may be mended while we run.
func runNode(ctx context.Context, o driver.NodeOptions) error {
	log := klog.FromContext(ctx)
	unlock, err := driver.LockPluginDir(o.PluginDir)
	if err != nil {
		return err
	}
	defer unlock()
	node, err := driver.NewNode(o, slogger(log))
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if _, err := node.Ready(ctx); err != nil {
		log.Error(err, "This node cannot stage volumes yet")
	}
	w, err := newWeb(o.HTTPAddress, o.Endpoint)
	if err != nil {
		return err
	}
	w.registry.MustRegister(metrics.NewNode(node.Figures()))
	untaint, err := startupTaint(o, node)
	if err != nil {
		return err
	}
	return w.during(ctx, func(ctx context.Context) error { return serveNode(ctx, o, w, node, untaint) })
}

// startupTaint is what removes the node's startup taint, or nothing.
func startupTaint(o driver.NodeOptions, node *driver.Node) (func(context.Context), error) {
	if !o.RemoveStartupTaint {
		return func(context.Context) {}, nil
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("--remove-startup-taint needs a pod with a service account token: %w", err)
	}
	config.UserAgent = driver.Name + "/" + driver.Version()
	// The clients of these two groups alone: those of all of Kubernetes would
	// make the program a quarter larger.
	nodes, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("--remove-startup-taint: %w", err)
	}
	csiNodes, err := storagev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("--remove-startup-taint: %w", err)
	}
	taint := driver.StartupTaint{
		Nodes: nodes.Nodes(), CSINodes: csiNodes.CSINodes(),
		NodeName: o.NodeName, NodeID: node.ID().String(), Ready: node.Ready,
	}
	return func(ctx context.Context) {
		// It fails only when the process is about to end.
		if err := taint.Remove(ctx); err != nil {
			klog.FromContext(ctx).Info("The startup taint stays", "reason", err.Error())
		}
	}, nil
}

// serveNode serves CSI and registers it. The order matters: kubelet calls the
// CSI socket as soon as it sees the registration's, so that one is made last.
func serveNode(ctx context.Context, o driver.NodeOptions, w *web, node *driver.Node, untaint func(context.Context)) error {
	listener, err := driver.Listen(ctx, o.Endpoint)
	if err != nil {
		return err
	}
	defer listener.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { node.Reconcile(ctx); return nil })
	g.Go(func() error { node.EndShutOut(ctx); return nil })
	g.Go(func() error {
		return driver.ServeOn(ctx, listener, func(s *grpc.Server) {
			csi.RegisterIdentityServer(s, driver.NewIdentity(driver.Version(), node.Ready))
			csi.RegisterNodeServer(s, node)
		}, w.counted())
	})
	g.Go(func() error { untaint(ctx); return nil })
	w.health.Serving()
	klog.FromContext(ctx).Info("Serving CSI node", "version", driver.Version(), "endpoint", o.Endpoint, "node", o.NodeName,
		"nodeID", node.ID().String(), "state", o.PluginDir, "registration", o.RegistrationDir, "http", o.HTTPAddress)
	if o.RegistrationDir != "" {
		g.Go(func() error { return register(ctx, o) })
	}
	return g.Wait()
}

func register(ctx context.Context, o driver.NodeOptions) error {
	listener, err := driver.ListenRegistration(ctx, o.RegistrationDir)
	if err != nil {
		return err
	}
	return driver.ServeRegistration(ctx, listener, o.Endpoint)
}
