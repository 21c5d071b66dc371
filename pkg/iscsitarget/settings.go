package iscsitarget

import (
	"fmt"
	"net/netip"
	"strings"
)

// TargetSettings are what may change while a target is there; the zero value is
// usable.
type TargetSettings struct {
	// Alias is the TargetAlias that initiators are told.
	Alias string
	// MaxSessions bounds the normal sessions; 0 means no bound but the
	// server's.
	MaxSessions int
	// Sessions are what the target wants of its sessions; nil is
	// [DefaultSessionParameters].
	Sessions *SessionParameters
	// Admit is asked, beside the grants, who may log in and who is told of the
	// target in discovery; nil admits everybody. It is called for each login by
	// several goroutines, and may read a file.
	Admit func(Visitor) bool
	// Portals are the addresses that SendTargets gives to one who asks at local,
	// "ip:port" or "[ip6]:port"; nil gives the server's.
	Portals func(local netip.AddrPort) []string
}

// Visitor is who asks for a target, and where.
type Visitor struct {
	// Initiator is an iSCSI name in lower case.
	Initiator string
	// Remote is the initiator's address, Local the portal that it came to. IPv4
	// addresses are those also where they came mapped into IPv6.
	Remote, Local netip.AddrPort
}

// complete checks settings and fills in what they leave out.
func (s TargetSettings) complete() (TargetSettings, error) {
	p := DefaultSessionParameters()
	if s.Sessions != nil {
		p = *s.Sessions
	}
	s.Sessions = &p
	if strings.ContainsFunc(s.Alias, unprintable) || len(s.Alias) > maxAlias {
		return s, fmt.Errorf("alias %.64q, want %d printable bytes at most: %w", s.Alias, maxAlias, ErrInvalid)
	}
	return s, p.check()
}

// maxAlias is the longest alias in bytes (RFC 7143 section 13.7).
const maxAlias = 255

func unprintable(r rune) bool { return r < ' ' || r == 0x7f }

// Configure replaces the settings. Logins from then on follow them; sessions that
// there are stay as they are.
func (t *Target) Configure(settings TargetSettings) error {
	settings, err := settings.complete()
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settings = settings
	return nil
}

// current are the settings of now.
func (t *Target) current() TargetSettings {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.settings
}

// admits asks whether the target is there for a visitor at all.
func (t *Target) admits(v Visitor) bool {
	admit := t.current().Admit
	return admit == nil || admit(v)
}
