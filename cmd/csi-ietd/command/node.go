package command

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/driver"
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
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runNode(ctx, o)
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

// runNode serves until ctx ends. What the machine lacks is told once here and
// by every Probe; it may be mended while we run.
func runNode(ctx context.Context, o driver.NodeOptions) error {
	log := klog.FromContext(ctx)
	node, err := driver.NewNode(o, slogger(log))
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if _, err := node.Ready(ctx); err != nil {
		log.Error(err, "This node cannot stage volumes yet")
	}
	log.Info("Serving CSI node", "endpoint", o.Endpoint, "node", o.NodeName, "nodeID", node.ID().String(), "state", o.PluginDir)
	return driver.Serve(ctx, o.Endpoint, func(s *grpc.Server) {
		csi.RegisterIdentityServer(s, driver.NewIdentity(driver.Version(), node.Ready))
		csi.RegisterNodeServer(s, node)
	})
}
