package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
)

// ietdOptions are the options of ietd(8).
type ietdOptions struct {
	foreground bool
	config     string
	addresses  []string
	port       uint16
	debug      int
	stateDir   string
}

// defaultStateDir is where the state of LUNs lies.
const defaultStateDir = "/var/lib/csi-ietd/ietd"

// defaultConfigs are where the configuration is looked for.
var defaultConfigs = []string{"/etc/iet/ietd.conf", "/etc/ietd.conf"}

func (o *ietdOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.foreground, "foreground", "f", false, "stay on the console")
	f.StringVarP(&o.config, "config", "c", "", "configuration `file` (default "+strings.Join(defaultConfigs, ", then ")+")")
	f.StringSliceVarP(&o.addresses, "address", "a", nil, "local IPv4 or IPv6 `address` to listen on, may be repeated (default any)")
	f.Uint16VarP(&o.port, "port", "p", 3260, "port to listen on")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir, "`directory` for what the disks must remember: reservations that outlive a power loss, saved mode pages, the atomic write under way")
	f.IntVarP(&o.debug, "debug", "d", 0, "debug `level`, 0 to 2")
}

func (o *ietdOptions) validate() error {
	if !o.foreground {
		return errors.New("ietd runs in the foreground only today: add -f, and let a service manager keep it in the background")
	}
	if o.debug < 0 || o.debug > 2 {
		return fmt.Errorf("--debug %d: want 0, 1 or 2", o.debug)
	}
	for _, a := range o.addresses {
		if net.ParseIP(a) == nil {
			return fmt.Errorf("--address %q: want an IPv4 or IPv6 address, without a port", a)
		}
	}
	return nil
}

// configPath is the file that was given, or the first default that exists.
func (o *ietdOptions) configPath() (string, error) {
	if o.config != "" {
		return o.config, nil
	}
	for _, path := range defaultConfigs {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
	}
	return "", fmt.Errorf("no configuration: there is no %s; give one with -c", strings.Join(defaultConfigs, " and no "))
}

func newIetdCommand() *cobra.Command {
	var o ietdOptions
	cmd := &cobra.Command{
		Use:   "ietd",
		Short: "Serve the targets of an ietd.conf, without Kubernetes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return runIetd(cmd.Context(), o)
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

// runIetd serves until ctx ends. Nobody is accepted before every target is
// there: an initiator that is told that its target does not exist gives its
// session up.
func runIetd(ctx context.Context, o ietdOptions) (err error) {
	if err := setDebug(o.debug); err != nil {
		return err
	}
	log := klog.FromContext(ctx)
	path, err := o.configPath()
	if err != nil {
		return err
	}
	conf, err := ietconf.ParseFile(path)
	if err != nil {
		return err
	}
	guardWriteback(log)
	server := iscsitarget.NewServer(iscsitarget.Options{Logger: slogger(log), DiscoveryCHAP: chapOf(conf.Discovery)})
	export, err := newIetdExport(path, conf, makeStateDir(o.stateDir, log), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, export.close(server)) }()
	if err := export.addTo(server); err != nil {
		return err
	}
	listeners, err := o.listen(ctx)
	if err != nil {
		return err
	}
	log.Info("Serving ietd", "config", path, "targets", len(conf.Targets), "luns", export.luns(), "addresses", addressesOf(listeners))
	return serveAll(ctx, server, listeners)
}

// setDebug makes ietd's debug levels klog's: its first one is where the
// libraries' debug messages begin.
func setDebug(level int) error {
	if level == 0 {
		return nil
	}
	var v klog.Level
	return v.Set(strconv.Itoa(3 + level))
}

// listen opens every address, or any.
func (o *ietdOptions) listen(ctx context.Context) (listeners []net.Listener, err error) {
	addresses := o.addresses
	if len(addresses) == 0 {
		addresses = []string{""}
	}
	for _, a := range addresses {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(a, strconv.Itoa(int(o.port))))
		if err != nil {
			for _, open := range listeners {
				_ = open.Close() // nobody has connected
			}
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func addressesOf(listeners []net.Listener) string {
	var list []string
	for _, l := range listeners {
		list = append(list, l.Addr().String())
	}
	return strings.Join(list, ",")
}

// serveAll serves until ctx ends or one listener fails.
func serveAll(ctx context.Context, server *iscsitarget.Server, listeners []net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error { return server.Serve(ctx, l) })
	}
	return g.Wait()
}
