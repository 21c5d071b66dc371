// Package iscsitarget is an iSCSI target (RFC 7143) that runs in the caller's
// process: no kernel target, no daemon, no privileges.
//
//	s := iscsitarget.NewServer(iscsitarget.Options{})
//	t, err := s.AddTarget(iscsitarget.TargetConfig{Name: "iqn.2026-11.io.example:disk"})
//	err = t.AddLUN(0, iscsitarget.LUNConfig{Device: dev, ...})
//	err = t.Permit(iscsitarget.Grant{Initiator: "iqn.2026-11.io.example:host"})
//	err = s.Serve(ctx, listener)
//
// The package imports no Kubernetes, gRPC, CSI or Prometheus.
package iscsitarget

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/login"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/scsi"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/session"
)

// TargetConfig describes a target node to add.
type TargetConfig struct {
	// Name is the iSCSI name, iqn., eui. or naa. (RFC 7143 section 4.2.7).
	Name string
	TargetSettings
}

// Grant is one initiator's right to log in to a target.
type Grant struct {
	// Initiator is the initiator's iSCSI name; empty admits any name.
	Initiator string
	// ReadOnly refuses this initiator's writes.
	ReadOnly bool
	// CHAP is what the initiator must prove; nil admits it without.
	CHAP *CHAP
}

// CHAP are the credentials of one grant (RFC 7143 section 12.1.3).
type CHAP struct {
	// User is the CHAP_N that the initiator must give. With StageNonce the
	// initiator gives User, a "+" and 1 to 64 letters and digits that it
	// renews on every staging and repeats on every reconnect.
	User       string
	Secret     string
	StageNonce bool
	// MutualUser and MutualSecret are what the target answers a mutual
	// challenge with; empty refuses one.
	MutualUser, MutualSecret string
}

// SessionStatus is a snapshot of one session.
type SessionStatus struct {
	Target, Initiator string
	// ISID is 12 hexadecimal digits.
	ISID        string
	TSIH        uint16
	Discovery   bool
	Connections []ConnectionStatus
	// Since is when login ended.
	Since time.Time
	// Commands and the byte counts are totals since login.
	Commands, BytesRead, BytesWritten uint64
	// Negotiated is what the login of its first connection settled.
	Negotiated SessionParameters
}

// ConnectionStatus is a snapshot of one connection.
type ConnectionStatus struct {
	CID                      uint16
	Remote, Local            string
	HeaderDigest, DataDigest bool
}

// Target is a target node: logical units and who may use them.
type Target struct {
	server *Server
	name   string
	units  *scsi.Inventory

	// attaching is held while a unit is added or all are flushed: both may
	// wait for a device, which nothing under mu does.
	attaching sync.Mutex
	flushed   bool  // guarded by attaching
	flushErr  error // guarded by attaching

	mu       sync.Mutex
	settings TargetSettings // Sessions is never nil
	luns     map[uint16]*scsi.Unit
	grants   []*Grant
	seats    map[*seat]struct{}
	past     Traffic // of the sessions that ended
	removed  bool
	moved    string           // where logins are sent to, empty for none
	forGood  bool             // permanently
	work     map[string]*work // fences and the removal, under way
}

func newTarget(s *Server, name string, settings TargetSettings) *Target {
	return &Target{
		server: s, name: name, settings: settings,
		units: scsi.NewInventory(), luns: map[uint16]*scsi.Unit{},
		seats: map[*seat]struct{}{}, work: map[string]*work{},
	}
}

// Name is the target's iSCSI name, in lower case.
func (t *Target) Name() string { return t.name }

// Redirect sends every later login to another portal, "ip:port" or "[ip6]:port",
// for a while or for good (RFC 7143 section 11.13.5, status 0101h and 0102h);
// before authentication, and discovery still tells the portals of this server.
// An empty address ends that. Sessions stay.
func (t *Target) Redirect(address string, permanent bool) error {
	if address != "" {
		if _, err := netip.ParseAddrPort(address); err != nil {
			return fmt.Errorf("%s: redirect to %q: %w", t.name, address, err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moved, t.forGood = address, permanent
	return nil
}

// abort ends the commands that initiator ports have under way at a unit.
func (t *Target) abort(ctx context.Context, u *scsi.Unit, ports []string) {
	var theirs []*session.Session
	for _, s := range t.Peers() {
		if slices.Contains(ports, initiatorPort(s.Initiator, s.ISID)) {
			theirs = append(theirs, s)
		}
	}
	session.AbortTasks(ctx, theirs, u)
}

// Renegotiate declares another MaxRecvDataSegmentLength to the initiators that are
// logged in, 512 to 16777215 bytes: it asks each for a text exchange (RFC 7143 section
// 11.9.1, event 4) and drops the connections on which none comes within a time. It
// returns when all have heard of it.
func (t *Target) Renegotiate(maxRecvDataSegmentLength uint32, within time.Duration) error {
	if maxRecvDataSegmentLength < 512 || maxRecvDataSegmentLength >= 1<<24 {
		return fmt.Errorf("%s: MaxRecvDataSegmentLength %d: %w", t.name, maxRecvDataSegmentLength, ErrInvalid)
	}
	var wg sync.WaitGroup
	for _, s := range t.Peers() {
		wg.Go(func() { s.RequestNegotiation(maxRecvDataSegmentLength, within) })
	}
	wg.Wait()
	return nil
}

// Disconnect closes a connection of a session, which ends with its last one. One that is
// not there is no error.
func (t *Target) Disconnect(id SID, cid uint16) {
	for _, s := range t.Peers() {
		if s.ISID == id.ISID && s.TSIH == id.TSIH {
			s.Disconnect(cid)
		}
	}
}

// Peers implements session.Host.
func (t *Target) Peers() []*session.Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*session.Session
	for seat := range t.seats {
		if peer := seat.session.Load(); peer != nil {
			all = append(all, peer)
		}
	}
	return all
}

// Permit adds a grant, or replaces the one of the same initiator and user. A
// replaced grant ends no session. While a Revoke of the initiator is under way
// it fails with ErrFencing: what is still in flight belongs to the grant before.
func (t *Target) Permit(g Grant) error {
	g.Initiator = strings.ToLower(g.Initiator)
	if g.Initiator != "" && !login.ValidName(g.Initiator) {
		return fmt.Errorf("initiator name %q: %w", g.Initiator, ErrInvalid)
	}
	if c := g.CHAP; c != nil {
		if c.User == "" || c.Secret == "" {
			return fmt.Errorf("CHAP of %q needs a user and a secret: %w", g.Initiator, ErrInvalid)
		}
		if c.Secret == c.MutualSecret {
			return fmt.Errorf("CHAP user %q: the secrets of the two directions must differ: %w", c.User, ErrInvalid)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.removed:
		return fmt.Errorf("%s: %w", t.name, ErrTargetRemoved)
	case t.fencing(g.Initiator):
		return fmt.Errorf("%s: %s: %w", t.name, g.Initiator, ErrFencing)
	}
	for i, old := range t.grants {
		if old.Initiator == g.Initiator && old.user() == g.user() {
			t.grants[i] = &g
			return nil
		}
	}
	t.grants = append(t.grants, &g)
	return nil
}

// SetGrants replaces all grants. Sessions end, and have ended when it returns, that rest
// on a user of CHAP who has no grant any more; those of users who have another secret
// now, and those that were admitted without proof, stay. When ctx ends first nobody who
// has no grant can log in, and the work goes on.
func (t *Target) SetGrants(ctx context.Context, grants []Grant) error {
	t.mu.Lock()
	before := t.grants
	t.mu.Unlock()
	for _, g := range grants {
		if err := t.Permit(g); err != nil {
			return err
		}
	}
	stays := func(g *Grant) bool {
		return slices.ContainsFunc(grants, func(n Grant) bool { return strings.EqualFold(n.Initiator, g.Initiator) && n.user() == g.user() })
	}
	gone := slices.DeleteFunc(slices.Clone(before), stays)
	drop := func() {
		t.grants = slices.DeleteFunc(t.grants, func(g *Grant) bool { return slices.Contains(gone, g) })
	}
	_, err := t.join(ctx, "end of users", drop, func() error {
		t.clear(func(s *seat) bool { return s.grant.CHAP != nil && !stays(s.grant) })
		return nil
	})
	return err
}

func (g *Grant) user() string {
	if g.CHAP == nil {
		return ""
	}
	return g.CHAP.User
}

// grantsOf returns the grants that an initiator may log in by, its own first.
func (t *Target) grantsOf(initiator string) (out []*Grant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed {
		return nil
	}
	var open []*Grant
	for _, g := range t.grants {
		switch g.Initiator {
		case initiator:
			out = append(out, g)
		case "":
			open = append(open, g)
		}
	}
	return append(out, open...)
}

// holds says whether a grant that a login rests on still stands. t.mu is held.
func (t *Target) holds(g *Grant) bool {
	for _, have := range t.grants {
		if have == g {
			return g != nil
		}
	}
	return false
}

// work is a fence or a removal that goes on though its caller has given up.
type work struct {
	done chan struct{}
	// err counts once done is closed. It is kept until a caller has seen it.
	err     error
	waiting int // callers, guarded by Target.mu
}

func fence(initiator string) string { return "fence of " + initiator }

// fencing says whether a Revoke of that initiator is under way. t.mu is held.
func (t *Target) fencing(initiator string) bool { return t.work[fence(initiator)] != nil }

// Revoke is the fence: it returns nil only when the initiator has no grant, no
// login under way, no session, and no command of it whose system call has not
// returned, what it wrote is on stable storage, and it has no registration and no
// reservation any more, not after a restart either. When ctx ends first, the
// initiator can log in no more, the work goes on, and Revoke may be called
// again. An initiator that has no grant is no error.
//
// The empty name revokes the grant that admits any name, and ends the sessions
// that rest on it. A name that such a grant admits can come back.
func (t *Target) Revoke(ctx context.Context, initiator string) error {
	initiator = strings.ToLower(initiator)
	revoke := func() {
		t.grants = slices.DeleteFunc(t.grants, func(g *Grant) bool { return g.Initiator == initiator })
	}
	_, err := t.join(ctx, fence(initiator), revoke, func() error {
		left := t.clear(func(s *seat) bool { return s.initiator == initiator || s.grant.Initiator == initiator })
		left[initiator] = true
		for name := range left {
			if err := errors.Join(t.units.Purge(name), t.units.Forget(name)); err != nil {
				return fmt.Errorf("fence of %s at %s: %w", name, t.name, err)
			}
		}
		return nil
	})
	return err
}

// clear closes the sessions of seats, waits until they are left, and returns
// the initiators that sat there.
func (t *Target) clear(match func(*seat) bool) map[string]bool {
	var leaving []*seat
	names := map[string]bool{}
	t.mu.Lock()
	for s := range t.seats {
		if match(s) {
			leaving = append(leaving, s)
			names[s.initiator] = true
			s.close()
		}
	}
	t.mu.Unlock()
	for _, s := range leaving {
		<-s.done
	}
	return names
}

// join does what takes no time, under t.mu, then runs do under a key, or waits
// for the run that is under way; ended says that it came to its end. The
// goroutine is the server's: Shutdown waits for it.
func (t *Target) join(ctx context.Context, key string, first func(), do func() error) (ended bool, err error) {
	t.mu.Lock()
	first()
	w := t.work[key]
	if w == nil {
		w = &work{done: make(chan struct{})}
		if !t.server.goes(func() { t.run(key, w, do) }) {
			t.mu.Unlock()
			return false, ErrServerClosed
		}
		t.work[key] = w
	}
	w.waiting++
	t.mu.Unlock()
	select {
	case <-w.done:
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w.waiting--
	select {
	case <-w.done:
		if t.work[key] == w {
			delete(t.work, key)
		}
		return true, w.err
	default:
		return false, fmt.Errorf("%s at %s: I/O still under way: %w", key, t.name, ctx.Err())
	}
}

// run does the work. An error that nobody waits for stays for the next caller:
// it may be about lost writes.
func (t *Target) run(key string, w *work, do func() error) {
	err := do()
	t.mu.Lock()
	defer t.mu.Unlock()
	w.err = err
	if err == nil || w.waiting > 0 {
		delete(t.work, key)
	}
	close(w.done)
}

// remove ends everything at the target; ended says that nothing is left of it,
// even where err says that what was written may be lost.
func (t *Target) remove(ctx context.Context) (ended bool, err error) {
	return t.join(ctx, "removal", func() { t.removed = true }, func() error {
		t.clear(func(*seat) bool { return true })
		return t.flush()
	})
}

func (t *Target) isRemoved() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.removed
}
