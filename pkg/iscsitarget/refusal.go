package iscsitarget

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// Refusal is why a connection did not become a session: one of [Refusals].
type Refusal string

// The reasons, coarse enough to be counted.
const (
	// RefusedAuthentication: the initiator did not prove who it is.
	RefusedAuthentication Refusal = "authentication"
	// RefusedNotPermitted: there is no such target, or the initiator may
	// not use it. The two are one, so that names cannot be probed.
	RefusedNotPermitted Refusal = "not_permitted"
	// RefusedUnavailable: the initiator is being fenced, or I/O of the
	// session that is to be reinstated is still under way.
	RefusedUnavailable Refusal = "unavailable"
	// RefusedTooMany: the target has as many sessions as it may.
	RefusedTooMany Refusal = "too_many_sessions"
	// RefusedMoved: the target is elsewhere, and the initiator was told where.
	RefusedMoved Refusal = "moved"
	// RefusedProtocol: the login breaks the rules, or is none.
	RefusedProtocol Refusal = "protocol"
	// RefusedTarget: something failed on this side.
	RefusedTarget Refusal = "target_error"
	// RefusedTimeout: the login took too long.
	RefusedTimeout Refusal = "timeout"
	// RefusedDisconnected: the connection broke in the middle of the login.
	RefusedDisconnected Refusal = "disconnected"
)

// Refusals are all that there are.
var Refusals = []Refusal{
	RefusedAuthentication, RefusedNotPermitted, RefusedUnavailable, RefusedTooMany, RefusedMoved,
	RefusedProtocol, RefusedTarget, RefusedTimeout, RefusedDisconnected,
}

// loginError is a login that was answered with a refusal.
type loginError struct {
	status pdu.LoginStatus
	error
}

func (e loginError) Unwrap() error { return e.error }

// refusalOf says why a login came to nothing; false where nobody wanted to log
// in: the connection was closed before its first byte.
func refusalOf(err error) (Refusal, bool) {
	var answered loginError
	switch {
	case errors.As(err, &answered):
		return refusalOfStatus(answered.status), true
	case errors.Is(err, io.EOF):
		return "", false
	case errors.Is(err, os.ErrDeadlineExceeded):
		return RefusedTimeout, true
	case errors.Is(err, errNotLogin):
		return RefusedProtocol, true
	}
	var broken net.Error
	if errors.As(err, &broken) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return RefusedDisconnected, true
	}
	return RefusedProtocol, true
}

func refusalOfStatus(s pdu.LoginStatus) Refusal {
	switch s {
	case pdu.LoginAuthFailure:
		return RefusedAuthentication
	case pdu.LoginNotFound, pdu.LoginForbidden:
		return RefusedNotPermitted
	case pdu.LoginServiceUnavailable:
		return RefusedUnavailable
	case pdu.LoginTooManyConnections:
		return RefusedTooMany
	case pdu.LoginMovedTemporarily, pdu.LoginMovedPermanently:
		return RefusedMoved
	case pdu.LoginTargetError, pdu.LoginOutOfResources:
		return RefusedTarget
	}
	return RefusedProtocol
}

const (
	// repeatInterval is how often the log tells of the same refusal: an
	// initiator that was fenced comes back every few seconds, for ever.
	repeatInterval = time.Minute
	// repeatLimit bounds how many refusals are told apart; whoever makes up
	// names shares one line with all the others beyond it.
	repeatLimit = 1024
)

// repeats thins out log lines that say the same.
type repeats struct {
	mu   sync.Mutex
	seen map[repeat]*repeated
}

type repeat struct {
	who string
	why string
}

type repeated struct {
	since time.Time
	more  uint64 // since then, untold
}

// tell says whether to log now, and how many times it happened untold before.
func (r *repeats) tell(key repeat, now time.Time) (untold uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[repeat]*repeated{}
	}
	if r.seen[key] == nil && len(r.seen) >= repeatLimit {
		r.forget(now)
	}
	if r.seen[key] == nil && len(r.seen) >= repeatLimit {
		key = repeat{}
	}
	last := r.seen[key]
	if last != nil && now.Sub(last.since) < repeatInterval {
		last.more++
		return 0, false
	}
	if last != nil {
		untold = last.more
	}
	r.seen[key] = &repeated{since: now}
	return untold, true
}

// forget drops what has not happened for long.
func (r *repeats) forget(now time.Time) {
	for key, last := range r.seen {
		if now.Sub(last.since) >= repeatInterval {
			delete(r.seen, key)
		}
	}
}

// refused counts a login that came to nothing, and logs it now and then.
func (s *Server) refused(c net.Conn, d *door, err error) {
	why, wanted := refusalOf(err)
	if !wanted {
		return
	}
	s.counters.refuse(why)
	who := d.visitor.Initiator
	if who == "" {
		who = hostOf(c.RemoteAddr())
	}
	if untold, ok := s.repeats.tell(repeat{who, string(why)}, time.Now()); ok {
		s.log.Warn("login failed", "remote", c.RemoteAddr().String(), "initiator", d.visitor.Initiator, "target", d.target,
			"reason", string(why), "error", err, "repeated", untold)
	}
}

// denied counts a connection from an address that is not allowed, and logs it
// now and then.
func (s *Server) denied(c net.Conn, log *slog.Logger) {
	s.counters.denied.Add(1)
	if untold, ok := s.repeats.tell(repeat{hostOf(c.RemoteAddr()), "address"}, time.Now()); ok {
		log.Warn("connection from an address that is not allowed", "remote", c.RemoteAddr().String(), "repeated", untold)
	}
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}
