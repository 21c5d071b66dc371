// Package command is the command line of csi-ietd: one file per subcommand, and
// the only place that wires the packages together.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
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
	newIetadmCommand,
}

// Run runs the command line, the program's name before it, until it ends by itself, or
// SIGINT or SIGTERM ends it, and returns the exit status. A second signal kills the
// process. Under the name of ietd or ietadm the program is that subcommand alone.
func Run(ctx context.Context, args []string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	defer klog.Flush()
	return run(ctx, newProgram(filepath.Base(args[0])), args[1:], stderr)
}

// run runs a program with arguments, and returns its exit status.
func run(ctx context.Context, program *cobra.Command, args []string, stderr io.Writer) int {
	program.SetArgs(args)
	program.SetErr(stderr)
	err := program.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "%s: %v\n", program.Name(), err) // there is nobody else to tell
	var exit exitError
	if errors.As(err, &exit) {
		return exit.status
	}
	return 1
}

// exitError is an error with an exit status of its own.
type exitError struct {
	status int
	error
}

func (e exitError) Unwrap() error { return e.error }

// newProgram is what a program of that name is.
func newProgram(name string) *cobra.Command {
	command, alone := map[string]func() *cobra.Command{"ietd": newIetdCommand, "ietadm": newIetadmCommand}[name]
	if !alone {
		return newRoot()
	}
	cmd := command()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	return cmd
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "csi-ietd",
		Short:         "Kubernetes volumes over iSCSI, from a target in this process",
		Version:       driver.Version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	for _, make := range subcommands {
		root.AddCommand(make())
	}
	return root
}

// addLogFlags takes over what klog needs of its own flags. Logs go to stderr
// alone: who runs us keeps them.
func addLogFlags(cmd *cobra.Command) {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	for _, name := range []string{"v", "vmodule"} {
		cmd.Flags().AddGoFlag(flags.Lookup(name))
	}
}
