package iscsitarget

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/login"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/session"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/wire"
)

// Options are a server's settings; the zero value is usable.
type Options struct {
	// Logger receives what the server has to say; nil discards it.
	Logger *slog.Logger
	// Portals are the addresses, "ip:port" or "[ip]:port", that SendTargets
	// gives. Empty gives the local address of the asking connection.
	Portals []string
	// BootID identifies the machine's boot: writes that were acknowledged
	// but not flushed under another one are lost. Empty reads the kernel's.
	BootID string
	// NopInterval is the silence after which an initiator is pinged, 10 s
	// by default; one that does not answer within NopTimeout, 10 s by
	// default, is given up. Negative is for ever.
	NopInterval, NopTimeout time.Duration
	// LoginTimeout bounds a login, 15 s by default.
	LoginTimeout time.Duration
	// LogoutTimeout is how long Shutdown waits for initiators to log out,
	// which it asks them to: 3 s by default. Negative drops them unasked.
	LogoutTimeout time.Duration
	// MaxConnections bounds the connections, 4096 by default.
	MaxConnections int
	// MemoryBudget bounds the data on its way, in bytes, in each direction:
	// 64 MiB by default.
	MemoryBudget int
	// AllowFrom are the addresses that may connect; a connection from
	// another one is closed before a byte of it is read. IPv4 addresses are
	// those also where they come mapped into IPv6. Empty allows everybody.
	AllowFrom []netip.Prefix
	// DiscoveryCHAP are the credentials of discovery sessions; empty lets
	// everybody ask, and answers with what the name given may log in to.
	DiscoveryCHAP []CHAP
	// Trace is told of every [Event]; nil is for nobody. It is called by the
	// goroutines that serve connections, and must not wait for long.
	Trace func(Event)
}

const (
	// maxLogins bounds the connections that have not logged in: when one
	// more comes, the oldest is closed, so that idlers lock nobody out.
	maxLogins = 256
	// maxAsking bounds the discovery sessions in the same way: they need no
	// secret, and would otherwise use up the connections.
	maxAsking = 256
	// dataTimeout is how long a command waits for its Data-Out. It is longer
	// than what initiators give a command, so that a slow one is left to them.
	dataTimeout = 60 * time.Second
	// sessionBudget is one session's part of the memory budget in bytes.
	sessionBudget = 16 << 20
	// writeTimeout is how long a socket may take nothing. Beyond it the
	// peer is as good as dead; TCP itself waits for a quarter of an hour.
	writeTimeout = 30 * time.Second
)

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BootID == "" {
		o.BootID = kernelBootID()
	}
	o.NopInterval = orDefault(o.NopInterval, 10*time.Second)
	o.NopTimeout = orDefault(o.NopTimeout, 10*time.Second)
	o.LoginTimeout = orDefault(o.LoginTimeout, 15*time.Second)
	o.LogoutTimeout = orDefault(o.LogoutTimeout, 3*time.Second)
	o.MaxConnections = orDefault(o.MaxConnections, 4096)
	o.MemoryBudget = orDefault(o.MemoryBudget, 64<<20)
	o.AllowFrom = slices.Clone(o.AllowFrom)
	for i, p := range o.AllowFrom {
		o.AllowFrom[i] = unmapped(p)
	}
}

// unmapped is an IPv4 prefix that may have come mapped into IPv6.
func unmapped(p netip.Prefix) netip.Prefix {
	const mapped = 96 // bits before the IPv4 address (RFC 4291 section 2.5.5.2)
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// kernelBootID is the running kernel's, which containers share with their
// machine. Without it every start counts as a new boot: the safe side.
func kernelBootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Sprintf("unknown-%d", time.Now().UnixNano())
	}
	return strings.TrimSpace(string(b))
}

// Server is a set of targets behind one or more listeners.
type Server struct {
	opts     Options
	log      *slog.Logger
	sessions session.Config
	nextTSIH atomic.Uint32
	counters counters
	repeats  repeats

	mu      sync.Mutex
	targets map[string]*Target
	conns   map[net.Conn]struct{}
	logins  []net.Conn // not logged in yet, oldest first
	asking  []*seat    // discovery sessions, oldest first
	// listeners are the calls of Serve that accept now.
	listeners int
	closed    bool
	wg        sync.WaitGroup // of every goroutine of the server
}

// NewServer makes a server without targets and listeners.
func NewServer(opts Options) *Server {
	opts.setDefaults()
	s := &Server{
		opts: opts, log: opts.Logger,
		sessions: session.Config{
			ReadBudget: session.NewBudget(opts.MemoryBudget), WriteBudget: session.NewBudget(opts.MemoryBudget),
			SessionBudget: min(sessionBudget, opts.MemoryBudget),
			NopInterval:   opts.NopInterval, NopTimeout: opts.NopTimeout,
			DataTimeout: dataTimeout, WriteTimeout: writeTimeout,
		},
		targets: map[string]*Target{}, conns: map[net.Conn]struct{}{},
	}
	s.sessions.TraceText = s.traceText()
	return s
}

// WaitingThreads is how many threads of the process may wait for initiators, each with
// one of Go's processors: a program that serves sets GOMAXPROCS so much higher.
var WaitingThreads = wire.Seats

// Serve accepts connections until ctx ends or the listener fails, and closes
// the listener. Connections outlive it: Shutdown ends them. It may be called
// for several listeners.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	defer func() { _ = l.Close() }()
	s.listening(1)
	defer s.listening(-1)
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case isTemporary(err):
			// Out of file descriptors, most likely: a pause lets some
			// be closed, where a tight loop would only burn the CPU.
			s.log.Warn("accept failed", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		case err != nil:
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		c = prepare(c)
		switch {
		case !s.allowed(c.RemoteAddr()):
			s.denied(c, s.log)
			_ = c.Close()
		case !s.admit(c):
			s.counters.dropped.Add(1)
			_ = c.Close()
		}
	}
}

func (s *Server) listening(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners += n
}

// allowed says whether an address may connect. One that is no IP address, as
// of a unix socket, has no place in a list of prefixes.
func (s *Server) allowed(a net.Addr) bool {
	if len(s.opts.AllowFrom) == 0 {
		return true
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false
	}
	addr := ap.Addr().Unmap().WithZone("") // a prefix holds no address with a zone
	return slices.ContainsFunc(s.opts.AllowFrom, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func isTemporary(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Temporary() //nolint:staticcheck // EMFILE and its kin have no other mark
}

// admit starts a connection's goroutine; false where there is no room.
func (s *Server) admit(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= s.opts.MaxConnections {
		return false
	}
	if len(s.logins) >= maxLogins {
		_ = s.logins[0].Close()
		s.logins = s.logins[1:]
	}
	s.counters.accepted.Add(1)
	s.conns[c] = struct{}{}
	s.logins = append(s.logins, c)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer s.forget(c)
		s.serve(c)
	}()
	return true
}

// goes runs f on a goroutine that Shutdown waits for; false after Shutdown.
func (s *Server) goes(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(f)
	return true
}

func (s *Server) forget(c net.Conn) {
	_ = c.Close()
	s.loggedIn(c)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// loggedIn takes a connection off the list of those that may be evicted.
func (s *Server) loggedIn(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range s.logins {
		if l == c {
			s.logins = append(s.logins[:i], s.logins[i+1:]...)
			return
		}
	}
}

// AddTarget adds a target without units and grants.
func (s *Server) AddTarget(cfg TargetConfig) (*Target, error) {
	name := strings.ToLower(cfg.Name)
	if !login.ValidName(name) {
		return nil, fmt.Errorf("target name %q: %w: an iSCSI name begins with iqn., eui. or naa., has 223 bytes at most and no blanks", cfg.Name, ErrInvalid)
	}
	settings, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	t := newTarget(s, name, settings)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, ErrServerClosed
	case s.targets[name] != nil:
		return nil, fmt.Errorf("%s: %w", name, ErrTargetExists)
	}
	s.targets[name] = t
	return t, nil
}

// RemoveTarget fences every initiator of a target, flushes its units and takes
// it away; their Devices are the caller's to close. When ctx ends first the
// target admits nobody any more, the work goes on, and RemoveTarget is to be
// called again. Another error is a flush that failed: the target is gone, and
// what was written to it may be lost.
func (s *Server) RemoveTarget(ctx context.Context, name string) error {
	t, ok := s.Target(name)
	if !ok {
		return fmt.Errorf("%s: %w", name, ErrTargetNotFound)
	}
	ended, err := t.remove(ctx)
	if !ended {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.targets[t.name] == t {
		delete(s.targets, t.name)
	}
	return err
}

// SetDiscoveryCHAP replaces the credentials of discovery sessions, for logins from then
// on.
func (s *Server) SetDiscoveryCHAP(list []CHAP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.DiscoveryCHAP = list
}

func (s *Server) discoveryCHAP() []CHAP {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opts.DiscoveryCHAP
}

// Target returns the target of that name.
func (s *Server) Target(name string) (*Target, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.targets[strings.ToLower(name)]
	return t, ok
}

// Targets returns all targets, ordered by name.
func (s *Server) Targets() []*Target {
	s.mu.Lock()
	all := make([]*Target, 0, len(s.targets))
	for _, t := range s.targets {
		all = append(all, t)
	}
	s.mu.Unlock()
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	return all
}

// Sessions returns a snapshot of all sessions, ordered by target and TSIH.
func (s *Server) Sessions() []SessionStatus {
	var all []SessionStatus
	for _, t := range s.Targets() {
		for _, peer := range t.Peers() {
			all = append(all, statusOf(peer))
		}
	}
	s.mu.Lock()
	for _, seat := range s.asking {
		if peer := seat.session.Load(); peer != nil {
			all = append(all, statusOf(peer))
		}
	}
	s.mu.Unlock()
	sort.SliceStable(all, func(i, j int) bool {
		if all[i].Target != all[j].Target {
			return all[i].Target < all[j].Target
		}
		return all[i].TSIH < all[j].TSIH
	})
	return all
}

func statusOf(p *session.Session) SessionStatus {
	stats := p.Stats()
	st := SessionStatus{
		Target: p.Target, Initiator: p.Initiator, ISID: fmt.Sprintf("%x", p.ISID[:]), TSIH: p.TSIH,
		Discovery: p.Discovery, Since: p.Since,
		Negotiated: settled(p.Params),
		Commands:   stats.Commands.Load(), BytesRead: stats.BytesRead.Load(), BytesWritten: stats.BytesWritten.Load(),
	}
	for _, c := range p.Connections() {
		st.Connections = append(st.Connections, ConnectionStatus{
			CID: c.CID, Remote: c.Remote(), Local: c.Local(), HeaderDigest: c.Params.HeaderDigest, DataDigest: c.Params.DataDigest,
		})
	}
	return st
}

// Shutdown ends all sessions, waits until every device call of theirs has
// returned, and flushes the units. Initiators are asked to log out and have
// LogoutTimeout to do so, or half of what ctx leaves, if that is less; called
// again, Shutdown asks nobody. Listeners are to be ended first, through the
// context of Serve. When ctx ends first its error is returned and the work goes
// on.
func (s *Server) Shutdown(ctx context.Context) error {
	patience := s.patience(ctx)
	done := make(chan error, 1)
	go func() {
		s.end(patience)
		s.wg.Wait()
		var errs []error
		for _, t := range s.Targets() {
			errs = append(errs, t.flush())
		}
		done <- errors.Join(errs...)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("sessions still have I/O under way: %w", ctx.Err())
	}
}

// patience closes the server to what is new, and says how long the sessions that
// it has may take to log out.
func (s *Server) patience(ctx context.Context) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0
	}
	s.closed = true
	wait := s.opts.LogoutTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/2)
	}
	return wait
}

// end asks the initiators to log out, where there is patience for it, and closes
// all connections. Nothing is lost to those that are in no normal session.
func (s *Server) end(patience time.Duration) {
	if patience > 0 {
		s.mu.Lock()
		for _, c := range s.logins {
			_ = c.Close()
		}
		for _, seat := range s.asking {
			seat.close()
		}
		s.mu.Unlock()
		s.requestLogouts(patience)
	}
	for _, t := range s.Targets() {
		for _, peer := range t.Peers() {
			peer.Close()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

func (s *Server) requestLogouts(within time.Duration) {
	var wg sync.WaitGroup
	for _, t := range s.Targets() {
		for _, peer := range t.Peers() {
			wg.Go(func() { peer.RequestLogout(within) })
		}
	}
	wg.Wait()
}
