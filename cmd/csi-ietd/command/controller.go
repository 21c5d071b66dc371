package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/file"
	"github.com/csi-ietd/csi-ietd/pkg/driver"
	"github.com/csi-ietd/csi-ietd/pkg/driver/metrics"
	"github.com/csi-ietd/csi-ietd/pkg/driver/volume"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietadm"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietd"
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
			return runController(cmd.Context(), o)
		},
	}
	o.AddFlags(cmd.Flags())
	addLogFlags(cmd)
	return cmd
}

// runController serves until ctx ends. The order matters: the portal accepts
// nobody before every volume is exported, since an initiator that is told that
// its target does not exist gives its session up; and CSI is served last.
func runController(ctx context.Context, o driver.ControllerOptions) error {
	log := klog.FromContext(ctx)
	addProcessors()
	guardWriteback(log)
	portal, err := new(net.ListenConfig).Listen(ctx, "tcp", o.ListenAddress)
	if err != nil {
		return fmt.Errorf("portal: %w", err)
	}
	defer portal.Close()
	portals, guessed, err := driver.AdvertisedPortals(o.Portals, portal.Addr(), net.InterfaceAddrs)
	if err != nil {
		return err
	}
	if guessed {
		log.Info("No --portal given: nodes are told this machine's first address", "portal", portals[0])
	}
	server, err := newTarget(o, portals, slogger(log))
	if err != nil {
		return err
	}
	w, err := newWeb(o.HTTPAddress, o.Endpoint)
	if err != nil {
		return err
	}
	w.pages["/debug/sessions"] = metrics.SessionsHandler(server)
	s := &storage{portal: portal, portals: portals, server: server}
	if o.AdminSocket != "" {
		if s.admin, err = ietadm.Listen(ctx, o.AdminSocket, -1); err != nil {
			return err
		}
		defer s.admin.Close()
	}
	return w.during(ctx, func(ctx context.Context) error { return serveVolumes(ctx, o, w, s) })
}

// storage is the target and where it is to be found.
type storage struct {
	portal  net.Listener
	portals []string
	server  *iscsitarget.Server
	admin   net.Listener // of ietadm, nil for none
}

// ready is what Probe says: by the time that CSI is served the pool is open.
func (s *storage) ready(context.Context) (bool, error) { return s.server.Stats().Listeners > 0, nil }

func newTarget(o driver.ControllerOptions, portals []string, log *slog.Logger) (*iscsitarget.Server, error) {
	bootID, err := readBootID()
	if err != nil {
		return nil, err
	}
	allowed, err := driver.ParsePrefixes(o.AllowFrom)
	if err != nil {
		return nil, err
	}
	return iscsitarget.NewServer(iscsitarget.Options{Logger: log, Portals: portals, BootID: bootID, AllowFrom: allowed}), nil
}

// serveVolumes opens the pool, exports what is in it and serves it.
func serveVolumes(ctx context.Context, o driver.ControllerOptions, w *web, s *storage) (err error) {
	log := klog.FromContext(ctx)
	pool, err := file.Open(o.PoolDir, file.Options{Logger: slogger(log)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	volumes, err := volume.Open(ctx, volume.Config{
		Pool:                  pool,
		Exporter:              volume.NewExporter(s.server),
		OverProvisioningRatio: o.OverProvisioningRatio,
		MaxPerNode:            o.MaxVolumesPerNode,
		Logger:                log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeVolumes(volumes)) }()
	w.registry.MustRegister(metrics.NewController(volumes, s.server))
	all, err := volumes.List(ctx)
	if err != nil {
		return err
	}
	listener, err := driver.Listen(ctx, o.Endpoint)
	if err != nil {
		return err
	}
	defer listener.Close()
	log.Info("Serving", "version", driver.Version(), "pool", o.PoolDir, "poolID", pool.ID(), "volumes", len(all),
		"portals", strings.Join(s.portals, ","), "endpoint", o.Endpoint, "http", o.HTTPAddress)
	return serveController(ctx, w, s, listener, driver.NewController(volume.Idempotent(volumes), s.portals))
}

// serveController serves the portal and CSI, until ctx ends or one of them
// fails. CSI ends first, so that calls in flight still have a target.
func serveController(ctx context.Context, w *web, s *storage, listener net.Listener, controller *driver.Controller) error {
	portalCtx, stopPortal := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPortal()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.server.Serve(portalCtx, s.portal) })
	if s.admin != nil {
		view := ietd.Viewer{Server: s.server, Refusal: "Kubernetes says what is served here: change it by PersistentVolumeClaims, with kubectl"}
		admin := &ietadm.Server{Handler: view, GID: -1, Logger: slogger(klog.FromContext(ctx))}
		g.Go(func() error { return admin.Serve(portalCtx, s.admin) })
	}
	g.Go(func() error {
		defer stopPortal()
		return driver.ServeOn(ctx, listener, func(r *grpc.Server) {
			csi.RegisterIdentityServer(r, driver.NewIdentity(driver.Version(), s.ready))
			csi.RegisterControllerServer(r, controller)
		}, w.counted())
	})
	w.health.Serving()
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
