// Package command is the command line of csi-ietd: one file per subcommand, and
// the only place that wires the packages together.
package command

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/driver"
)

// subcommands make every subcommand; one that is written gets a line here.
var subcommands = []func() *cobra.Command{
	newControllerCommand,
	newNodeCommand,
	newIetdCommand,
}

// Run runs the command line until it ends by itself, or SIGINT or SIGTERM ends
// it, and returns the exit status. A second signal kills the process.
func Run(ctx context.Context, args []string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	defer klog.Flush()
	root := newRoot()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		_, _ = fmt.Fprintf(stderr, "csi-ietd: %v\n", err) // there is nobody else to tell
		return 1
	}
	return 0
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "csi-ietd",
		Short:         "Kubernetes volumes over iSCSI, from a target in this process",
		Version:       driver.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	addLogFlags(root)
	for _, make := range subcommands {
		root.AddCommand(make())
	}
	return root
}

// addLogFlags takes over what klog needs of its own flags. Logs go to stderr
// alone: who runs us keeps them.
func addLogFlags(root *cobra.Command) {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	for _, name := range []string{"v", "vmodule"} {
		root.PersistentFlags().AddGoFlag(flags.Lookup(name))
	}
}
