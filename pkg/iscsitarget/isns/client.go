package isns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultPort is the TCP port of iSNS servers.
const DefaultPort = "3205"

// ErrRunning is a Run of a client that has run.
var ErrRunning = errors.New("the iSNS client has run already")

// Config is a client's configuration.
type Config struct {
	// Server is the iSNS server: a host name or an address, with or without a
	// port (host:port, [address]:port); 3205 without.
	Server string
	// EntityID names this host to the server (RFC 4171 section 6.2.1), usually
	// its domain name. Two hosts must not have the same.
	EntityID string
	// AccessControl asks the server which initiators may see each target; see
	// Allowed.
	AccessControl bool
	// RegistrationPeriod is after how long without a word the server may forget
	// this host, in whole seconds; 0: 10 minutes. The server may choose
	// another.
	RegistrationPeriod time.Duration
	// ESIInterval is how often the server is to ask whether this host is still
	// there, in whole seconds; 0: one minute. The server may choose another.
	ESIInterval time.Duration
	// OnChange is called for each State Change Notification, by Run, after
	// access has been refreshed, one at a time: it must return soon. nil: none.
	OnChange func(Notification)
	// Log takes what an administrator should see; nil: slog.Default().
	Log *slog.Logger
}

// timing is what tests make shorter.
type timing struct {
	call       time.Duration // to connect; for a request and its answer
	leave      time.Duration // to deregister at the end, all in all
	minBackoff time.Duration
	maxBackoff time.Duration
	settled    time.Duration // a connection of this age was a good one
	alive      time.Duration // longest rest between two requests
	refresh    time.Duration // of access, if no SCN came
}

var usual = timing{
	call:       10 * time.Second,
	leave:      5 * time.Second,
	minBackoff: time.Second,
	maxBackoff: time.Minute,
	settled:    time.Minute,
	alive:      2 * time.Minute, // open-isns closes what rested for five
	refresh:    time.Minute,     // open-isns does not tell who left a domain
}

// State is a client's state at a moment.
type State struct {
	// Registered says that the server has what Set asked for.
	Registered bool
	// Targets is how many the server has.
	Targets int
	// Server is the address that was reached last; zero: none yet.
	Server netip.Addr
	// LastESI is when the server asked last whether this host is there; zero:
	// never.
	LastESI time.Time
}

// Client registers with an iSNS server. All methods may be called at any time,
// by any goroutine.
type Client struct {
	config  Config
	address string
	log     *slog.Logger
	timing  timing
	dial    func(ctx context.Context, address string) (net.Conn, error)

	started atomic.Bool
	access  access
	news    *news
	changed chan struct{} // want is another

	mu    sync.Mutex
	want  Registration
	have  entry // what the server may have
	state State

	// Of Run's goroutine alone.
	inbox    *inbox
	replaced bool // what an earlier process left at the server is gone
	grouped  bool // the server may have other portal groups than it assumes
}

// New makes a client, which does nothing before Run.
func New(c Config) (*Client, error) {
	address, err := serverAddress(c.Server)
	if err != nil {
		return nil, err
	}
	if c.EntityID == "" || len(c.EntityID) > maxAlias || strings.ContainsRune(c.EntityID, 0) {
		return nil, fmt.Errorf("%w: entity identifier %q, want 1 to %d bytes", ErrInvalid, c.EntityID, maxAlias)
	}
	if c.RegistrationPeriod == 0 {
		c.RegistrationPeriod = 10 * time.Minute
	}
	if c.ESIInterval == 0 {
		c.ESIInterval = time.Minute
	}
	if c.RegistrationPeriod < time.Second || c.ESIInterval < time.Second {
		return nil, fmt.Errorf("%w: registration period %s and ESI interval %s, want a second at least", ErrInvalid, c.RegistrationPeriod, c.ESIInterval)
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Client{
		config:  c,
		address: address,
		log:     c.Log.With("server", address),
		timing:  usual,
		dial: func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		},
		news:    newNews(),
		changed: make(chan struct{}, 1),
	}, nil
}

// serverAddress is host:port of what a user writes for a server.
func serverAddress(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return net.JoinHostPort(a.String(), DefaultPort), nil
	}
	if s != "" && !strings.Contains(s, ":") {
		return net.JoinHostPort(s, DefaultPort), nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" || port == "" {
		return "", fmt.Errorf("%w: iSNS server %q, want a host or host:port", ErrInvalid, s)
	}
	return s, nil
}

// Set says what is to be registered from now on, in place of what was. It
// returns at once; Run tells the server. The error is ErrInvalid, and then
// nothing changes.
func (c *Client) Set(r Registration) error {
	if err := r.validate(); err != nil {
		return err
	}
	r = Registration{append([]Target(nil), r.Targets...), append([]Portal(nil), r.Portals...)}
	c.mu.Lock()
	c.want = r
	c.state.Registered = false
	c.mu.Unlock()
	poke(c.changed)
	return nil
}

// Allowed says whether an initiator may see a target: whether the server has
// both in a discovery domain. Without AccessControl everybody may. With it,
// nobody may log in to a target before the server has answered for it once;
// while the server is away its last answer holds. The server is asked when a
// target is registered, when it notifies, and every minute; so an initiator whose
// right is taken away may still log in for that long. Names compare without
// regard to case.
func (c *Client) Allowed(target, initiator string) bool {
	return !c.config.AccessControl || c.access.allowed(target, initiator)
}

// State returns the present state.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Run keeps the server up to date until ctx ends. Then it deregisters, which
// takes at most five seconds, and returns nil. The error is ErrRunning: a client
// runs once. What fails at the server is logged and tried again.
func (c *Client) Run(ctx context.Context) error {
	if c.started.Swap(true) {
		return ErrRunning
	}
	defer c.closeInbox()
	if c.config.AccessControl {
		c.log.Info("The iSNS server decides which initiators are admitted; none is, before it has answered")
	}
	backoff := c.timing.minBackoff
	said := ""
	for {
		begun := time.Now()
		err := c.session(ctx)
		c.setHave(c.having(), false)
		if ctx.Err() != nil {
			c.leave()
			return nil
		}
		if time.Since(begun) >= c.timing.settled {
			backoff, said = c.timing.minBackoff, ""
		}
		level := slog.LevelWarn
		if err.Error() == said {
			level = slog.LevelDebug // it was said
		}
		said = err.Error()
		c.log.Log(ctx, level, "Not registered with the iSNS server; trying again (is iSNSServer right, and the server running?)",
			"err", err, "again", backoff.String())
		if !pause(ctx, backoff) {
			c.leave()
			return nil
		}
		backoff = min(2*backoff, c.timing.maxBackoff)
	}
}

// pause waits for d; false: ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) connect(ctx context.Context) (*conn, error) {
	var nc net.Conn
	err := within(ctx, c.timing.call, func(ctx context.Context) (err error) {
		nc, err = c.dial(ctx, c.address)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newConn(nc), nil
}

// leave deregisters the entity, on a connection of its own.
func (c *Client) leave() {
	have := c.having()
	if have.empty() {
		return
	}
	err := within(context.Background(), c.timing.leave, func(ctx context.Context) error {
		k, err := c.connect(ctx)
		if err != nil {
			return err
		}
		defer k.close()
		_, err = k.call(ctx, devDereg, false, request(have.targets[0].Name, nil, attrs{c.entity()}))
		return err
	})
	if err != nil {
		c.log.Warn("Could not deregister; the iSNS server has this host until its registration period ends", "entity", c.config.EntityID, "err", err)
		return
	}
	c.setHave(entry{}, true)
	c.log.Info("Deregistered from the iSNS server", "entity", c.config.EntityID)
}

func (c *Client) entity() attr { return text(tagEntityID, c.config.EntityID) }

func (c *Client) having() entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.have
}

// setHave notes what the server may have, and whether it is all that is wanted.
func (c *Client) setHave(e entry, sure bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.have = e
	c.state.Registered = sure && !e.empty()
	if sure {
		c.state.Targets = len(e.targets)
	}
}

// trusts says whether an address is the server's.
func (c *Client) trusts(a netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return a.IsValid() && a.WithZone("") == c.state.Server.WithZone("")
}
