// Package ietconf reads ietd.conf(5), the configuration of the iSCSI
// Enterprise Target.
//
// The grammar is lines of words: a directive and its arguments. A line whose
// first word begins with # is a comment, a line that ends with a backslash
// goes on in the next one, and the last line needs no newline. Directives are
// recognised whatever their case; what stands before the first Target is
// global. Numbers may be decimal, octal (0...) or hexadecimal (0x...), and one
// out of its range is moved to the nearer end with a warning. A line has 4095
// bytes at most, and no control characters but those that separate words. Of a
// directive that stands twice in a stanza the last one counts.
//
// Unlike the old parser this one refuses what it does not know, instead of
// ignoring it. [Format] writes a configuration back, [Target.Set], [ParseLUN]
// and [UpdateLUN] change one by the rules of the file, and [Access] decides by
// initiators.allow, initiators.deny and targets.allow who may come.
package ietconf

import "fmt"

// Config is a configuration file.
type Config struct {
	// File is the name that Parse was given.
	File string
	// Discovery are the accounts of discovery sessions.
	Discovery Accounts
	// ISNSServer is a host name or address; empty: none.
	ISNSServer string
	// ISNSAccessControl asks the iSNS server who may log in.
	ISNSAccessControl bool
	Targets           []Target
	// Warnings are what was understood but not taken as written.
	Warnings []Problem
}

// Accounts are CHAP credentials.
type Accounts struct {
	// Incoming are what an initiator may prove; none asks for no proof.
	Incoming []Account
	// Outgoing is what the target proves; nil: it does not.
	Outgoing *Account
}

// Account is a CHAP name and secret; see [CheckAccount].
type Account struct{ User, Password string }

// Target is a target stanza.
type Target struct {
	Accounts
	// Name is the iSCSI name as written, 223 bytes at most.
	Name string
	// Alias is 255 bytes at most; empty: none.
	Alias string
	// MaxSessions bounds the target's sessions; 0: no bound.
	MaxSessions int
	LUNs        []LUN
	// Parameters are the other directives of the stanza, by their name as
	// ietd.conf(5) spells it, in canonical form: Yes or No, a decimal
	// number, a list. What is absent has its default (see Default).
	Parameters map[string]string
	// Line is where the stanza begins.
	Line int
}

// LUN is a Lun directive.
type LUN struct {
	// Number is 0 to 16383.
	Number uint16
	Path   string
	Type   Type
	IOMode IOMode
	// ScsiID is 16 bytes at most, ScsiSN 32 printable characters; empty:
	// not given.
	ScsiID, ScsiSN string
	// BlockSize is in bytes, a power of two from 512 to 4096; 0: not given.
	BlockSize int
	// Blocks is the size of a nullio unit in blocks; 0: not given.
	Blocks int64
	// Identity is what the unit tells of itself.
	Identity Identity
	// Line is where the directive begins.
	Line int
}

// Type is what serves a LUN.
type Type string

// The types of LUN.
const (
	FileIO  Type = "fileio"  // a file or block device, through the page cache
	BlockIO Type = "blockio" // past the page cache
	NullIO  Type = "nullio"  // nothing: writes vanish
)

// Identity is how a LUN's INQUIRY data and designators are made.
type Identity string

// The identities.
const (
	IETIdentity    Identity = "iet"    // as IET makes them
	ModernIdentity Identity = "modern" // with globally unique names
)

// IOMode is when a LUN's writes are stable.
type IOMode string

// The I/O modes.
const (
	WriteThrough IOMode = "wt" // before they are acknowledged
	WriteBack    IOMode = "wb" // after SYNCHRONIZE CACHE
	ReadOnly     IOMode = "ro" // there are none
)

// Problem is an error or a warning about one directive.
type Problem struct {
	File      string
	Line      int
	Directive string
	// Message says what is wrong and what would be right.
	Message string
}

func (p Problem) Error() string {
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Directive, p.Message)
}
