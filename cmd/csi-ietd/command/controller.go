package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/file"
	"github.com/csi-ietd/csi-ietd/pkg/driver"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// shutdownTimeout bounds how long the end waits for I/O in flight. What does
// not end by then ends with the process.
const shutdownTimeout = 20 * time.Second

func newControllerCommand() *cobra.Command {
	o := driver.DefaultControllerOptions()
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Serve CSI's controller and the iSCSI target of the pool on this machine",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runController(ctx, o)
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

// runController serves until ctx ends. The order matters: the portal accepts
// nobody before every volume is exported, since an initiator that is told that
// its target does not exist gives its session up; and CSI is served last.
func runController(ctx context.Context, o driver.ControllerOptions) (err error) {
	log := klog.FromContext(ctx)
	guardWriteback(log)

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.ListenAddress)
	if err != nil {
		return fmt.Errorf("portal: %w", err)
	}
	defer listener.Close()
	portals, guessed, err := driver.AdvertisedPortals(o.Portals, listener.Addr(), net.InterfaceAddrs)
	if err != nil {
		return err
	}
	if guessed {
		log.Info("No --portal given: nodes are told this machine's first address", "portal", portals[0])
	}

	pool, err := file.Open(o.PoolDir, file.Options{Logger: slogger(log)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	bootID, err := readBootID()
	if err != nil {
		return err
	}
	server := iscsitarget.NewServer(iscsitarget.Options{Logger: slogger(log), Portals: portals, BootID: bootID})
	volumes, err := volume.Open(ctx, volume.Config{
		Pool:                  pool,
		Exporter:              volume.NewExporter(server),
		OverProvisioningRatio: o.OverProvisioningRatio,
		Logger:                log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeVolumes(volumes)) }()

	all, err := volumes.List(ctx)
	if err != nil {
		return err
	}
	log.Info("Serving", "version", driver.Version(), "pool", o.PoolDir, "poolID", pool.ID(), "volumes", len(all),
		"portals", strings.Join(portals, ","), "endpoint", o.Endpoint)
	return serveController(ctx, o.Endpoint, listener, server, driver.NewController(volume.Idempotent(volumes), portals))
}

// serveController serves the portal and CSI, until ctx ends or one of them
// fails. CSI ends first, so that calls in flight still have a target.
func serveController(ctx context.Context, endpoint string, portal net.Listener, server *iscsitarget.Server, controller *driver.Controller) error {
	portalCtx, stopPortal := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPortal()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Serve(portalCtx, portal) })
	g.Go(func() error {
		defer stopPortal()
		return driver.Serve(ctx, endpoint, func(s *grpc.Server) {
			csi.RegisterIdentityServer(s, driver.NewIdentity(driver.Version(), nil))
			csi.RegisterControllerServer(s, controller)
		})
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func closeVolumes(volumes *volume.Manager) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	return volumes.Close(ctx)
}

// readBootID tells this boot of the machine from every other.
func readBootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

func slogger(log klog.Logger) *slog.Logger { return slog.New(logr.ToSlogHandler(log)) }
