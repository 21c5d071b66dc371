package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/durable"
	"github.com/csi-ietd/csi-ietd/pkg/driver"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietadm"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietd"
)

// statusStart is ietd's exit status where it did not come to serve.
const statusStart = 255

// ietdOptions are the options of ietd(8).
type ietdOptions struct {
	foreground, check   bool
	config              string
	addresses           []string
	port                uint16
	debug               int
	uid, gid            string
	pidFile, socket     string
	stateDir, statusDir string
	lunRoot             string
	logFormat           string
	accessDirs          []string
}

// Where ietd has its files, where nothing else is said.
const (
	defaultStateDir = "/var/lib/csi-ietd/ietd"
	defaultPidFile  = "/run/ietd.pid"
)

// defaultConfigs are where the configuration is looked for, and defaultAccessDirs where
// initiators.allow and the like are.
var (
	defaultConfigs    = []string{"/etc/iet/ietd.conf", "/etc/ietd.conf"}
	defaultAccessDirs = []string{"/etc/iet", "/etc"}
)

func (o *ietdOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.config, "config", "c", "", "configuration `file` (default "+strings.Join(defaultConfigs, ", then ")+")")
	f.IntVarP(&o.debug, "debug", "d", 0, "debug `level`, 0 to 2")
	f.IntVar(&o.debug, "debuglevel", 0, "the same")
	f.BoolVarP(&o.foreground, "foreground", "f", false, "stay on the console, and log there")
	f.StringVarP(&o.gid, "gid", "g", "", "`group` to run as, whose members may use ietadm, a name or a number")
	f.StringVarP(&o.uid, "uid", "u", "", "`user` to run as, a name or a number")
	f.StringSliceVarP(&o.addresses, "address", "a", nil, "local IPv4 or IPv6 `address` to listen on, may be repeated (default any)")
	f.Uint16VarP(&o.port, "port", "p", 3260, "port to listen on")
	f.BoolVar(&o.check, "check", false, "say what the configuration means, and end")
	f.StringVar(&o.pidFile, "pid-file", "", "`file` for the process id (default "+defaultPidFile+" in the background, none in the foreground)")
	f.StringVar(&o.socket, "socket", ietadm.DefaultSocket, "`path` of the socket on which ietadm is listened to; empty for none")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir, "`directory` for what the disks must remember: reservations that outlive a power loss, saved mode pages, the atomic write under way")
	f.StringVar(&o.statusDir, "status-dir", "", "`directory` for the files volume and session, as /proc/net/iet had them")
	f.StringVar(&o.lunRoot, "lun-root", "", "`directory` that the paths of all LUNs must lie below, whatever their links say (default any)")
	f.StringVar(&o.logFormat, "log-format", "text", "`format` of the log: text or json")
	f.StringSliceVar(&o.accessDirs, "access-dir", defaultAccessDirs, "`directory` of initiators.allow, initiators.deny and targets.allow; the first that has one counts, may be repeated")
	f.BoolP("version", "v", false, "print the version")
}

func (o *ietdOptions) validate() error {
	if o.debug < 0 || o.debug > 2 {
		return fmt.Errorf("--debug %d: want 0, 1 or 2", o.debug)
	}
	if o.logFormat != "text" && o.logFormat != "json" {
		return fmt.Errorf("--log-format %.64q: want text or json", o.logFormat)
	}
	for _, a := range o.addresses {
		if net.ParseIP(a) == nil {
			return fmt.Errorf("--address %.64q: want an IPv4 or IPv6 address, without a port", a)
		}
	}
	return nil
}

// complete finds the configuration, and makes paths absolute: the daemon works in /.
func (o *ietdOptions) complete() (err error) {
	if o.config == "" {
		if o.config, err = firstOf(defaultConfigs); err != nil {
			return err
		}
	}
	if o.pidFile == "" && !o.foreground {
		o.pidFile = defaultPidFile
	}
	for _, path := range []*string{&o.config, &o.pidFile, &o.socket, &o.stateDir, &o.statusDir, &o.lunRoot} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

// firstOf is the first file that exists; without one ietd begins without targets, as
// ietadm then makes them, and saves them to the first.
func firstOf(paths []string) (string, error) {
	for _, path := range paths {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
	}
	return paths[0], nil
}

func newIetdCommand() *cobra.Command {
	var o ietdOptions
	cmd := &cobra.Command{
		Use:     "ietd",
		Short:   "Serve the targets of an ietd.conf, without Kubernetes",
		Version: driver.Version(),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := o.validate()
			if err == nil {
				err = o.complete()
			}
			if err != nil {
				return err
			}
			switch {
			case o.check:
				return o.explain(cmd.OutOrStdout())
			case !o.foreground && !isDaemon():
				return daemonise(cmd.Context(), cmd.ErrOrStderr())
			}
			return runIetd(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

// explain says what the configuration means, and what is wrong with the files of who is
// allowed.
func (o *ietdOptions) explain(w io.Writer) error {
	conf, err := ietconf.ParseFile(o.config)
	if err != nil {
		return exitError{statusStart, err}
	}
	if err := ietconf.Explain(w, conf); err != nil {
		return err
	}
	if err := ietconf.NewAccess(o.accessDirs...).Check(); err != nil {
		return exitError{statusStart, err}
	}
	return nil
}

// runIetd serves until ctx ends.
func runIetd(ctx context.Context, o ietdOptions, stderr io.Writer) (err error) {
	log := slog.New(o.logHandler(stderr))
	p := &ietdProcess{o: o, log: log}
	if err := p.start(ctx); err != nil {
		if !o.foreground {
			log.Error(err.Error()) // the terminal has it too
		}
		tellParent(err)
		return exitError{statusStart, errors.Join(err, p.stop())}
	}
	tellParent(nil)
	defer func() { err = errors.Join(err, p.stop()) }()
	return p.serve(ctx)
}

// ietdProcess is what a running ietd holds.
type ietdProcess struct {
	o         ietdOptions
	log       *slog.Logger
	who       identity
	pid       *pidFile
	daemon    *ietd.Daemon
	listeners []net.Listener
	admin     net.Listener // nil: none
}

// start opens all that needs rights, gives them up, and has every target there before
// anybody is accepted: an initiator that is told that its target does not exist gives
// its session up.
func (p *ietdProcess) start(ctx context.Context) (err error) {
	if p.who, err = lookUp(p.o.uid, p.o.gid); err != nil {
		return err
	}
	conf, err := p.configuration()
	if err != nil {
		return err
	}
	if p.o.pidFile != "" {
		if p.pid, err = lockPidFile(p.o.pidFile); err != nil {
			return err
		}
	}
	addProcessors()
	guardWriteback(logr.FromSlogHandler(p.log.Handler()))
	if p.listeners, err = p.o.listen(ctx); err != nil {
		return err
	}
	if err := p.openSocket(ctx); err != nil {
		return err
	}
	stateDir := p.makeStateDir()
	p.daemon = ietd.New(ietd.Options{
		Logger: p.log, Access: ietconf.NewAccess(p.o.accessDirs...), StateDir: stateDir, Save: p.save, EntityID: p.o.entityID(), LUNRoot: p.o.lunRoot,
	})
	if err := p.who.mayRead(p.files(conf, stateDir)); err != nil {
		return err
	}
	if err := p.daemon.Apply(ctx, conf); err != nil {
		return err
	}
	if err := p.makeStatusDir(); err != nil {
		return err
	}
	if err := p.who.become(); err != nil {
		return err
	}
	p.log.Info("Serving ietd", "config", p.o.config, "targets", len(conf.Targets), "addresses", addressesOf(p.listeners))
	return nil
}

// entityID names this ietd to an iSNS server: those of a host differ by their port.
func (o *ietdOptions) entityID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost" // an iSNS server refuses it where another has it
	}
	if o.port == 3260 {
		return host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(o.port)))
}

// configuration reads the file; where there is none by default there are no targets.
func (p *ietdProcess) configuration() (*ietconf.Config, error) {
	conf, err := ietconf.ParseFile(p.o.config)
	if errors.Is(err, fs.ErrNotExist) && p.o.config == defaultConfigs[0] {
		p.log.Warn("There is no configuration: ietadm makes targets", "looked for", strings.Join(defaultConfigs, ","))
		return &ietconf.Config{}, nil
	}
	return conf, err
}

// files are what is read again while ietd runs, and whether it is written too.
func (p *ietdProcess) files(conf *ietconf.Config, stateDir string) map[string]bool {
	files := map[string]bool{p.o.config: false}
	if stateDir != "" {
		files[stateDir] = true
		kept, _ := os.ReadDir(stateDir) // an error of this is one of opening it
		for _, f := range kept {
			files[filepath.Join(stateDir, f.Name())] = false
		}
	}
	for _, dir := range p.o.accessDirs {
		for _, name := range ietconf.AccessFiles {
			files[filepath.Join(dir, name)] = false
		}
	}
	for _, t := range conf.Targets {
		for _, l := range t.LUNs {
			if l.Path != "" {
				files[l.Path] = files[l.Path] || l.IOMode != ietconf.ReadOnly
			}
		}
	}
	return files
}

// openSocket makes the socket of ietadm.
func (p *ietdProcess) openSocket(ctx context.Context) error {
	if p.o.socket == "" {
		return nil
	}
	if err := p.who.makeDir(filepath.Dir(p.o.socket), 0o755); err != nil {
		if p.o.socket == ietadm.DefaultSocket && errors.Is(err, fs.ErrPermission) {
			p.log.Warn("ietadm has no way here: its socket cannot be made", "socket", p.o.socket, "error", err)
			return nil
		}
		return err
	}
	var err error
	p.admin, err = ietadm.Listen(ctx, p.o.socket, p.who.gid)
	return err
}

// makeStateDir makes the directory for the state of LUNs; where it cannot be
// written to it says so once and returns none: an ordinary user's target serves
// its disks without.
func (p *ietdProcess) makeStateDir() string {
	dir := p.o.stateDir
	err := p.who.makeDir(dir, 0o700)
	if err == nil {
		err = unix.Access(dir, unix.W_OK|unix.X_OK)
	}
	if err == nil {
		err = syncParents(dir)
	}
	if err != nil {
		p.log.Warn("Nothing is kept across a restart, neither reservations (APTPL) nor mode pages: the directory of --state-dir cannot be used", "dir", dir, "error", err)
		return ""
	}
	return dir
}

func (p *ietdProcess) makeStatusDir() error {
	if p.o.statusDir == "" {
		return nil
	}
	return p.who.makeDir(p.o.statusDir, 0o755)
}

// syncParents makes the names of a directory and of those above it stable: one
// that a power cut takes away takes the state along.
func syncParents(dir string) (err error) {
	for err == nil && dir != "/" {
		dir = filepath.Dir(dir)
		err = durable.SyncDir(dir)
	}
	return err
}

// save replaces the configuration by text, and keeps the one before. Who could read it
// still can: it has passwords, and is its owner's alone where it is new.
func (p *ietdProcess) save(text string) error {
	mode := fs.FileMode(0o600)
	old, err := os.ReadFile(p.o.config)
	if err == nil {
		err = durable.WriteFile(p.o.config+".old", old)
		if st, statErr := os.Stat(p.o.config); statErr == nil {
			mode = st.Mode().Perm()
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.WriteFile(p.o.config, []byte(text)); err != nil {
		return err
	}
	return os.Chmod(p.o.config, mode)
}

// serve serves until ctx ends or a listener fails, and reads the configuration again on
// SIGHUP.
func (p *ietdProcess) serve(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP)
	defer signal.Stop(hangups)
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range p.listeners {
		g.Go(func() error { return p.daemon.Serve(ctx, l) })
	}
	if p.admin != nil {
		server := &ietadm.Server{Handler: p.daemon, GID: p.who.gid, Logger: p.log}
		g.Go(func() error { return server.Serve(ctx, p.admin) })
	}
	if p.o.statusDir != "" {
		g.Go(func() error { return p.daemon.WriteStatus(ctx, p.o.statusDir) })
	}
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hangups:
				p.reload(ctx)
			}
		}
	})
	return g.Wait()
}

// reload applies what the configuration says now.
func (p *ietdProcess) reload(ctx context.Context) {
	conf, err := ietconf.ParseFile(p.o.config)
	if err != nil {
		p.log.Error("The configuration stays as it was: its file has errors", "error", err)
		return
	}
	if err := p.daemon.Apply(ctx, conf); err != nil {
		p.log.Error("The configuration is not all applied", "error", err)
		return
	}
	p.log.Info("The configuration is applied", "config", p.o.config, "targets", len(conf.Targets))
}

// stop ends the sessions in order, and gives everything back.
func (p *ietdProcess) stop() error {
	var errs []error
	if p.daemon != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		errs = append(errs, p.daemon.Close(ctx))
	}
	for _, l := range append(p.listeners, p.admin) {
		if l != nil {
			_ = l.Close() // it was closed, where it was served
		}
	}
	if p.pid != nil {
		errs = append(errs, p.pid.remove())
	}
	return errors.Join(errs...)
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
			return nil, listenError(err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// listenError has the wording of ietd(8) for what failed.
func listenError(err error) error {
	var call *os.SyscallError
	if !errors.As(err, &call) {
		return err
	}
	what, known := map[string]string{
		"socket":     "unable to create server socket (%v)!",
		"setsockopt": "unable to set SO_REUSEADDR on server socket (%v)!",
		"bind":       "unable to bind server socket (%v)!",
		"listen":     "unable to listen to server socket (%v)!",
	}[call.Syscall]
	if !known {
		return err
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(what, call.Err), err)
}

func addressesOf(listeners []net.Listener) string {
	var list []string
	for _, l := range listeners {
		list = append(list, l.Addr().String())
	}
	return strings.Join(list, ",")
}
