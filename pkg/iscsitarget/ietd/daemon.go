package ietd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev/raw"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
)

// Options are what a daemon is made of.
type Options struct {
	// Logger gets the messages of ietd(8), at the levels that messages.go names, and
	// what the target has to say.
	Logger *slog.Logger
	// Access are initiators.allow, initiators.deny and targets.allow.
	Access ietconf.Access
	// StateDir is where the disks' reservations and saved mode pages are kept, a
	// directory that exists; empty keeps none.
	StateDir string
	// EntityID is this daemon's name at an iSNS server, which no other may have: the
	// host's, usually.
	EntityID string
	// LUNRoot is a directory that all paths of LUNs must lie below; empty allows any.
	LUNRoot string
	// Save replaces the configuration file by text, durably; nil cannot.
	Save func(text string) error
	// Patience bounds how long a change waits for I/O under way: 30 s by default.
	Patience time.Duration
}

// Daemon serves the targets of a configuration. All methods may be called
// concurrently; changes are made one after the other.
type Daemon struct {
	opts   Options
	log    *slog.Logger
	server *iscsitarget.Server

	changed chan struct{} // there is something new for WriteStatus
	// What a login asks for is under nearMu, which is never held for long.
	nearMu  sync.Mutex
	portals []netip.AddrPort  // that are listened on
	tids    map[string]uint32 // by name in lower case

	directory atomic.Pointer[directory] // nil: none

	// mu is held while something is changed, which may wait for I/O.
	mu      sync.Mutex
	global  ietconf.Config     // without targets
	targets []*target          // by tid
	media   map[string]*medium // by path
	// numbered is how many media there have been.
	numbered int
}

// target is one that is served.
type target struct {
	tid   uint32
	conf  ietconf.Target // as it is now
	live  *iscsitarget.Target
	media map[uint16]*medium // by LUN
}

// New makes a daemon without targets.
func New(o Options) *Daemon {
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	d := &Daemon{opts: o, log: o.Logger, media: map[string]*medium{}, tids: map[string]uint32{}, changed: make(chan struct{}, 1)}
	d.server = iscsitarget.NewServer(iscsitarget.Options{Logger: o.Logger, Trace: d.follow})
	return d
}

// Serve accepts initiators until ctx ends or the listener fails; Close ends their
// sessions.
func (d *Daemon) Serve(ctx context.Context, l net.Listener) error {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		d.listens(a)
	}
	return d.server.Serve(ctx, l)
}

// Close asks the initiators to log out, ends the sessions, makes stable what was
// written and closes the devices. When ctx ends first its error is returned; what still
// has I/O under way is left to the end of the process.
func (d *Daemon) Close(ctx context.Context) error {
	d.mu.Lock()
	d.setDirectory(nil)
	d.mu.Unlock()
	if err := d.server.Shutdown(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, t := range d.targets {
		for _, m := range t.media {
			errs = append(errs, d.give(m))
		}
	}
	d.targets = nil
	return errors.Join(errs...)
}

// Apply makes the configuration what is served: targets and units that are as they were
// are not touched, and neither are their sessions. What cannot be opened is found
// before anything is changed, and then nothing is. An error of later says what is not
// as the file has it.
func (d *Daemon) Apply(ctx context.Context, conf *ietconf.Config) error {
	defer d.change()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range conf.Warnings {
		d.log.Warn(w.Error())
	}
	if err := d.checkMedia(conf); err != nil {
		return err
	}
	names, err := d.newDirectory(conf)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Patience)
	defer cancel()
	var errs []error
	for _, t := range slices.Clone(d.targets) {
		want := find(conf.Targets, t.conf.Name)
		if want == nil {
			errs = append(errs, d.removeTarget(ctx, t))
			continue
		}
		errs = append(errs, d.removeLUNs(ctx, t, want))
	}
	for i := range conf.Targets {
		want := &conf.Targets[i]
		t := d.byName(want.Name)
		if t == nil {
			var err error
			if t, err = d.addTarget(0, *want); err != nil {
				errs = append(errs, failed(conf, "Target", want.Line, err))
				continue
			}
		} else {
			d.say(messageActiveTarget, t.tid, t.conf.Name)
		}
		errs = append(errs, d.adjust(ctx, t, want, conf))
	}
	d.setGlobal(conf)
	d.setDirectory(names)
	return errors.Join(errs...)
}

// checkMedia looks at what is to be opened that is not open yet.
func (d *Daemon) checkMedia(conf *ietconf.Config) error {
	var errs []error
	for _, t := range conf.Targets {
		for _, l := range t.LUNs {
			if l.Type == ietconf.NullIO || d.media[l.Path] != nil {
				continue
			}
			_, writable := sharing(conf, l)
			device, err := raw.Open(l.Path, d.rawOptions(l, !writable))
			if err == nil {
				err = device.Close()
			}
			if err != nil {
				errs = append(errs, failed(conf, "Lun", l.Line, fmt.Errorf("%d: %w", l.Number, err)))
			}
		}
	}
	return errors.Join(errs...)
}

// setGlobal takes over what is before the first stanza.
func (d *Daemon) setGlobal(conf *ietconf.Config) {
	d.global = *conf
	d.global.Targets, d.global.Warnings = nil, nil
	d.server.SetDiscoveryCHAP(chapOf(conf.Discovery))
}

// failed names the line of the configuration that an error comes from.
func failed(conf *ietconf.Config, directive string, line int, err error) error {
	if conf.File == "" {
		return err
	}
	return fmt.Errorf("%s:%d: %s: %w", conf.File, line, directive, err)
}

func find(targets []ietconf.Target, name string) *ietconf.Target {
	for i := range targets {
		if strings.EqualFold(targets[i].Name, name) {
			return &targets[i]
		}
	}
	return nil
}

func (d *Daemon) byName(name string) *target {
	d.say(messageFindName, name)
	for _, t := range d.targets {
		if strings.EqualFold(t.conf.Name, name) {
			return t
		}
	}
	return nil
}

// addTarget adds a target of that tid, 0 for the next, without units.
func (d *Daemon) addTarget(tid uint32, conf ietconf.Target) (*target, error) {
	if tid == 0 {
		tid = d.freeTID()
	}
	d.say(messageCreatingTarget, tid, conf.Name)
	conf.LUNs, conf.Accounts = nil, ietconf.Accounts{}
	t := &target{tid: tid, conf: conf, media: map[uint16]*medium{}}
	var err error
	t.live, err = d.server.AddTarget(iscsitarget.TargetConfig{Name: conf.Name, TargetSettings: d.settingsOf(&conf)})
	if err != nil {
		return nil, err
	}
	d.targets = append(d.targets, t)
	d.nearMu.Lock()
	d.tids[t.live.Name()] = tid
	d.nearMu.Unlock()
	slices.SortFunc(d.targets, func(a, b *target) int { return int(a.tid) - int(b.tid) })
	return t, nil
}

// freeTID is the lowest number that no target has.
func (d *Daemon) freeTID() uint32 {
	tid := uint32(1)
	for _, t := range d.targets {
		if t.tid != tid {
			break
		}
		tid++
	}
	return tid
}

// removeTarget ends a target with its sessions.
func (d *Daemon) removeTarget(ctx context.Context, t *target) error {
	d.say(messageRemovingTarget, t.tid)
	d.say(messageTargetRemove, t.tid, t.conf.Name)
	if d.sessionsOf(t) > 0 {
		d.say(messageNeedToShutdown, t.conf.Name)
	}
	err := d.server.RemoveTarget(ctx, t.conf.Name)
	if gaveUp(ctx, err) {
		return err // it is still there, and closed to initiators
	}
	d.targets = slices.DeleteFunc(d.targets, func(other *target) bool { return other == t })
	d.nearMu.Lock()
	delete(d.tids, t.live.Name())
	d.nearMu.Unlock()
	errs := []error{err}
	for _, m := range t.media {
		errs = append(errs, d.give(m))
	}
	return errors.Join(errs...)
}

// adjust makes a target what its stanza says, but for the units that are in the way.
func (d *Daemon) adjust(ctx context.Context, t *target, want *ietconf.Target, conf *ietconf.Config) error {
	var errs []error
	for _, l := range want.LUNs {
		if t.media[l.Number] != nil {
			continue
		}
		if err := d.addLUN(t, l, conf); err != nil {
			errs = append(errs, failed(conf, "Lun", l.Line, err))
		}
	}
	if err := t.live.Configure(d.settingsOf(want)); err != nil {
		errs = append(errs, failed(conf, "Target", want.Line, err))
	}
	if err := d.setAccounts(ctx, t, want.Accounts); err != nil {
		errs = append(errs, failed(conf, "Target", want.Line, err))
	}
	luns := t.conf.LUNs
	t.conf = *want
	t.conf.LUNs = luns
	return errors.Join(errs...)
}

// addLUN adds a unit. conf has those that are to share its path, beside those that
// there are.
func (d *Daemon) addLUN(t *target, l ietconf.LUN, conf *ietconf.Config) error {
	shared, writable := sharing(conf, l)
	m, err := d.take(l, shared, writable)
	if err != nil {
		return fmt.Errorf("%d: %w", l.Number, err)
	}
	d.say(messageAttaching, m.number, t.tid, l.Number)
	if err := t.live.AddLUN(l.Number, lunConfig(t.conf.Name, l, m.device)); err != nil {
		return errors.Join(err, d.give(m))
	}
	t.media[l.Number] = m
	t.conf.LUNs = append(t.conf.LUNs, l)
	slices.SortFunc(t.conf.LUNs, func(a, b ietconf.LUN) int { return int(a.Number) - int(b.Number) })
	return nil
}

// sharing says whether several LUNs have the path of l, and whether one of them writes.
func sharing(conf *ietconf.Config, l ietconf.LUN) (shared, writable bool) {
	n := 0
	writable = l.IOMode != ietconf.ReadOnly
	for _, t := range conf.Targets {
		for _, other := range t.LUNs {
			if other.Path == l.Path && other.Type != ietconf.NullIO {
				n++
				writable = writable || other.IOMode != ietconf.ReadOnly
			}
		}
	}
	return n > 1, writable
}

// removeLUNs takes the units away that the stanza has otherwise, or not.
func (d *Daemon) removeLUNs(ctx context.Context, t *target, want *ietconf.Target) error {
	var errs []error
	for _, l := range slices.Clone(t.conf.LUNs) {
		if i := slices.IndexFunc(want.LUNs, func(w ietconf.LUN) bool { return w.Number == l.Number }); i < 0 || !same(l, want.LUNs[i]) {
			errs = append(errs, d.removeLUN(ctx, t, l.Number))
		}
	}
	return errors.Join(errs...)
}

// same says whether two directives ask for the same unit.
func same(a, b ietconf.LUN) bool {
	a.Line, b.Line = 0, 0
	return a == b
}

// removeLUN takes a unit away, when its commands have ended.
func (d *Daemon) removeLUN(ctx context.Context, t *target, lun uint16) error {
	err := t.live.RemoveLUN(ctx, lun)
	if gaveUp(ctx, err) {
		return err
	}
	if errors.Is(err, iscsitarget.ErrLUNNotFound) {
		err = nil // an earlier call gave up waiting for what has ended since
	}
	m := t.media[lun]
	delete(t.media, lun)
	t.conf.LUNs = slices.DeleteFunc(t.conf.LUNs, func(l ietconf.LUN) bool { return l.Number == lun })
	return errors.Join(err, d.give(m))
}

// gaveUp says that a removal goes on without its caller; another error is of one that
// has come to its end.
func gaveUp(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, ctx.Err())
}

// setAccounts replaces who may log in. Sessions of accounts that are gone end.
func (d *Daemon) setAccounts(ctx context.Context, t *target, accounts ietconf.Accounts) error {
	return t.live.SetGrants(ctx, grantsOf(accounts))
}

// chapOf returns what an initiator may prove; the outgoing account answers
// each of them.
func chapOf(a ietconf.Accounts) (list []iscsitarget.CHAP) {
	for _, in := range a.Incoming {
		c := iscsitarget.CHAP{User: in.User, Secret: in.Password}
		if a.Outgoing != nil {
			c.MutualUser, c.MutualSecret = a.Outgoing.User, a.Outgoing.Password
		}
		list = append(list, c)
	}
	return list
}

// grantsOf admits any initiator with one of the accounts, or without proof
// where there is none.
func grantsOf(a ietconf.Accounts) (grants []iscsitarget.Grant) {
	for _, c := range chapOf(a) {
		grants = append(grants, iscsitarget.Grant{CHAP: &c})
	}
	if len(grants) == 0 {
		return []iscsitarget.Grant{{}}
	}
	return grants
}
