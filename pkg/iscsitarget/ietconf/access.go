package ietconf

import (
	"errors"
	"net/netip"
	"time"
)

// The files of access control.
const (
	initiatorsAllow = "initiators.allow"
	initiatorsDeny  = "initiators.deny"
	targetsAllow    = "targets.allow"
)

// AccessFiles are the names of the files that [Access] reads.
var AccessFiles = []string{initiatorsAllow, initiatorsDeny, targetsAllow}

// Access decides by initiators.allow, initiators.deny and targets.allow who
// may log in to a target, and where a target is to be seen.
//
// Each file is read at each decision, from the first directory that has it, so
// that a change counts at once. Its lines are
//
//	<target|ALL> <item>[, <item>...]
//
// and an item is ALL, an address (IPv4, IPv6 or [IPv6]), addresses as
// address/bits or, for an initiator, a POSIX basic regular expression that
// must match its whole name. The first line that is for the target decides,
// and none after it. Case does not count in names. A line whose first word
// begins with # is a comment.
//
// What is wrong in a file is an error, and an error always comes with false:
// a file that cannot be read, is longer than 1 MiB or has more than 16384
// lines denies everybody; a line that is wrong denies those that it decides
// about. Errors name the file, the line and the item, and say what would be
// right.
//
// A file is best replaced by a rename: one that is written in place is short
// for a moment, and a decision in that moment goes by what is there.
//
// The zero Access reads no files and admits everybody. Copies share what they
// have read, and may be used by many goroutines.
type Access struct {
	dirs  []string
	cache *accessCache
}

// NewAccess reads the files in dirs, each from the first that has it; without
// any, in /etc/iet and then /etc.
func NewAccess(dirs ...string) Access {
	if len(dirs) == 0 {
		dirs = []string{"/etc/iet", "/etc"}
	}
	return Access{dirs: append([]string(nil), dirs...), cache: &accessCache{files: map[string]cachedFile{}, now: time.Now}}
}

// peer is who asks: an initiator with its name and address, or a portal with
// its address alone.
type peer struct {
	name string
	addr netip.Addr
}

// Initiator reports whether an initiator that comes from remote may log in to
// target. Where there is initiators.deny it is refused only if that matches
// and initiators.allow does not. Where there is none, initiators.allow must
// match if it is there.
func (a Access) Initiator(target, initiator string, remote netip.Addr) (bool, error) {
	who := peer{initiator, plain(remote)}
	denied, deny, err := a.match(initiatorsDeny, target, who)
	if err != nil {
		return false, err
	}
	if deny && !denied {
		return true, nil
	}
	allowed, allow, err := a.match(initiatorsAllow, target, who)
	if err != nil {
		return false, err
	}
	return allowed || !allow && !deny, nil
}

// Portal reports whether target may be used and told of at the target's own
// address local: always where there is no targets.allow, otherwise if it
// matches.
func (a Access) Portal(target string, local netip.Addr) (bool, error) {
	allowed, allow, err := a.match(targetsAllow, target, peer{addr: plain(local)})
	if err != nil {
		return false, err
	}
	return allowed || !allow, nil
}

// plain is an address without its zone, and IPv4 where IPv6 only wraps it.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// match reports whether the file is there, and whether the line in it that is
// for target matches.
func (a Access) match(file, target string, who peer) (matches, there bool, err error) {
	f, err := a.read(file)
	if f == nil || err != nil {
		return false, false, err
	}
	matches, err = f.match(target, who)
	return matches, true, err
}

// Check returns what is wrong in the files, for a test of the configuration:
// an error joins a [Problem] for each line, up to a bound.
func (a Access) Check() error {
	var errs []error
	for _, name := range AccessFiles {
		f, err := a.read(name)
		if err != nil {
			errs = append(errs, err)
		}
		if f == nil {
			continue
		}
		for i := 0; i < len(f.lines) && len(errs) < maxErrors; i++ {
			if err := f.lines[i].check(f.path); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
