package text

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Answers of RFC 7143 section 6.2 that are no values.
const (
	NotUnderstood = "NotUnderstood"
	Irrelevant    = "Irrelevant"
	Reject        = "Reject"
)

// Params are a session's operational parameters: lengths in bytes, times in
// seconds (RFC 7143 section 13).
type Params struct {
	MaxConnections           uint32
	InitialR2T               bool
	ImmediateData            bool
	MaxRecvDataSegmentLength uint32 // what this target takes
	MaxSendDataSegmentLength uint32 // what the initiator declared that it takes
	MaxBurstLength           uint32
	FirstBurstLength         uint32
	MaxOutstandingR2T        uint32
	DefaultTime2Wait         uint32
	DefaultTime2Retain       uint32
	ErrorRecoveryLevel       uint32
	// HeaderDigest and DataDigest: PDUs carry a CRC32C. None is always
	// taken where an initiator prefers it.
	HeaderDigest, DataDigest bool
	TaskReporting            TaskReporting
	// ProtocolLevel is iSCSIProtocolLevel: from 2 on the initiator may use what
	// RFC 7144 adds.
	ProtocolLevel uint32
}

// OnConnection is what holds on a connection of a session with these parameters,
// whose login settled own.
func (p Params) OnConnection(own Params) Params {
	p.HeaderDigest, p.DataDigest = own.HeaderDigest, own.DataDigest
	p.MaxRecvDataSegmentLength, p.MaxSendDataSegmentLength = own.MaxRecvDataSegmentLength, own.MaxSendDataSegmentLength
	return p
}

// TaskReporting is how the end of tasks is told (RFC 7143 section 13.23).
type TaskReporting uint8

// The values of TaskReporting, each of which promises what those before it do.
const (
	RFC3720 TaskReporting = iota
	// ResponseFence keeps the answer to a task management function behind
	// the responses before it, on all connections of the session.
	ResponseFence
	// FastAbort does not wait for the data of tasks that are aborted.
	FastAbort
)

var taskReportings = []string{RFC3720: "RFC3720", ResponseFence: "ResponseFence", FastAbort: "FastAbort"}

// Defaults is what this target wants. What an initiator does not negotiate
// falls back to RFC 7143's own default, which Negotiator starts from.
func Defaults() Params {
	return Params{
		MaxConnections:           8,
		InitialR2T:               false,
		ImmediateData:            true,
		MaxRecvDataSegmentLength: 256 << 10,
		MaxSendDataSegmentLength: 8192,
		MaxBurstLength:           1 << 20,
		FirstBurstLength:         64 << 10, // what comes unasked: a full window of it fits a session's memory
		MaxOutstandingR2T:        8,
		DefaultTime2Wait:         2,
		DefaultTime2Retain:       20,
		ErrorRecoveryLevel:       2,
		HeaderDigest:             true,
		DataDigest:               true,
		ProtocolLevel:            2,
	}
}

// rfcDefaults is what holds for a key that nobody negotiates (RFC 7143 section
// 13).
func rfcDefaults() Params {
	return Params{
		MaxConnections: 1, InitialR2T: true, ImmediateData: true,
		MaxSendDataSegmentLength: 8192, MaxBurstLength: 262144, FirstBurstLength: 65536,
		MaxOutstandingR2T: 1, DefaultTime2Wait: 2, DefaultTime2Retain: 20, ProtocolLevel: 1,
	}
}

// scope says in which sessions a key has a meaning.
type scope uint8

const (
	anySession  scope = iota
	normalOnly        // in a discovery session: Irrelevant
	leadingOnly       // nor on a connection that joins a session: its leading one has settled it
	leadingAny        // the same, and in discovery sessions, too
)

// rule is how one key is negotiated: the table below has them all.
type rule struct {
	scope scope
	// answer takes the initiator's value and returns ours, having stored
	// the outcome.
	answer func(n *Negotiator, offered string) string
}

var rules = map[string]rule{
	"HeaderDigest":             {anySession, digest(func(p *Params) *bool { return &p.HeaderDigest })},
	"DataDigest":               {anySession, digest(func(p *Params) *bool { return &p.DataDigest })},
	"MaxConnections":           {leadingOnly, lesser(1, 65535, func(p *Params) *uint32 { return &p.MaxConnections })},
	"InitialR2T":               {leadingOnly, either(func(p *Params) *bool { return &p.InitialR2T })},
	"ImmediateData":            {leadingOnly, both(func(p *Params) *bool { return &p.ImmediateData })},
	"MaxRecvDataSegmentLength": {anySession, (*Negotiator).declareMRDSL},
	"MaxBurstLength":           {leadingOnly, lesser(512, 1<<24-1, func(p *Params) *uint32 { return &p.MaxBurstLength })},
	"FirstBurstLength":         {leadingOnly, lesser(512, 1<<24-1, func(p *Params) *uint32 { return &p.FirstBurstLength })},
	"MaxOutstandingR2T":        {leadingOnly, lesser(1, 65535, func(p *Params) *uint32 { return &p.MaxOutstandingR2T })},
	"DefaultTime2Wait":         {leadingAny, greater(0, 3600, func(p *Params) *uint32 { return &p.DefaultTime2Wait })},
	"DefaultTime2Retain":       {leadingAny, lesser(0, 3600, func(p *Params) *uint32 { return &p.DefaultTime2Retain })},
	"ErrorRecoveryLevel":       {leadingAny, lesser(0, 2, func(p *Params) *uint32 { return &p.ErrorRecoveryLevel })},
	"DataPDUInOrder":           {leadingOnly, always("Yes")},
	"DataSequenceInOrder":      {leadingOnly, always("Yes")},
	"TaskReporting":            {leadingOnly, (*Negotiator).taskReporting},
	"iSCSIProtocolLevel":       {leadingOnly, lesser(0, 31, func(p *Params) *uint32 { return &p.ProtocolLevel })},
	// SendTargets is for full-feature phase, the others are for targets to
	// say (RFC 7143 section 13, "Use" and "Senders").
	"SendTargets":          {anySession, reject},
	"TargetAddress":        {anySession, reject},
	"TargetAlias":          {anySession, reject},
	"TargetPortalGroupTag": {anySession, reject},
	// Markers are obsolete (RFC 7143 section 13.25).
	"IFMarker":  {normalOnly, always("No")},
	"OFMarker":  {normalOnly, always("No")},
	"IFMarkInt": {normalOnly, reject},
	"OFMarkInt": {normalOnly, reject},
}

// Negotiator holds one login's operational negotiation.
type Negotiator struct {
	// Params is the outcome so far.
	Params    Params
	own       Params
	discovery bool
	joining   bool
	done      map[string]bool
	declared  bool
}

// NewNegotiator starts a negotiation in which this end wants own. A connection that
// joins a session settles what it has of its own alone.
func NewNegotiator(own Params, discovery, joining bool) *Negotiator {
	n := &Negotiator{Params: rfcDefaults(), own: own, discovery: discovery, joining: joining, done: map[string]bool{}}
	n.Params.MaxRecvDataSegmentLength = own.MaxRecvDataSegmentLength
	if discovery {
		n.own.ErrorRecoveryLevel = 0 // there is nothing to recover
	}
	return n
}

// Answer negotiates one key that the initiator offered and returns our value;
// empty means that the key wants no answer. The error is a key that was
// negotiated before: RFC 7143 section 6.2 makes that a protocol error.
func (n *Negotiator) Answer(p Pair) (string, error) {
	r, ok := rules[p.Key]
	if !ok {
		return NotUnderstood, nil
	}
	if n.done[p.Key] {
		return "", fmt.Errorf("%w: %s was negotiated before", ErrSyntax, p.Key)
	}
	n.done[p.Key] = true
	if n.discovery && (r.scope == normalOnly || r.scope == leadingOnly) || n.joining && r.scope >= leadingOnly {
		return Irrelevant, nil
	}
	return r.answer(n, p.Value), nil
}

// Declare returns what this end declares of its own accord, once.
func (n *Negotiator) Declare() []Pair {
	if n.declared {
		return nil
	}
	n.declared = true
	return []Pair{{"MaxRecvDataSegmentLength", strconv.Itoa(int(n.own.MaxRecvDataSegmentLength))}}
}

// Finish settles what depends on two keys.
func (n *Negotiator) Finish() Params {
	p := n.Params
	p.FirstBurstLength = min(p.FirstBurstLength, p.MaxBurstLength)
	if p.ErrorRecoveryLevel > 0 {
		p.MaxOutstandingR2T = 1 // RFC 7143 section 13.17: sequences are in order
	}
	return p
}

func (n *Negotiator) declareMRDSL(offered string) string {
	v, err := number(offered, 512, 1<<24-1)
	if err != nil {
		return Reject
	}
	n.Params.MaxSendDataSegmentLength = v
	return ""
}

func number(s string, least, most uint32) (uint32, error) {
	base := 10
	digits := s
	if rest, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		digits, base = rest, 16
	}
	v, err := strconv.ParseUint(digits, base, 32)
	if err != nil || uint32(v) < least || uint32(v) > most {
		return 0, fmt.Errorf("%w: %.20q is not a number from %d to %d", ErrSyntax, s, least, most)
	}
	return uint32(v), nil
}

func lesser(least, most uint32, field func(*Params) *uint32) func(*Negotiator, string) string {
	return numeric(least, most, field, func(a, b uint32) uint32 { return min(a, b) })
}

func greater(least, most uint32, field func(*Params) *uint32) func(*Negotiator, string) string {
	return numeric(least, most, field, func(a, b uint32) uint32 { return max(a, b) })
}

// numeric negotiates a number.
func numeric(least, most uint32, field func(*Params) *uint32, pick func(a, b uint32) uint32) func(*Negotiator, string) string {
	return func(n *Negotiator, offered string) string {
		v, err := number(offered, least, most)
		if err != nil {
			return Reject
		}
		v = pick(v, *field(&n.own))
		*field(&n.Params) = v
		return strconv.Itoa(int(v))
	}
}

func either(field func(*Params) *bool) func(*Negotiator, string) string {
	return boolean(field, func(a, b bool) bool { return a || b })
}

func both(field func(*Params) *bool) func(*Negotiator, string) string {
	return boolean(field, func(a, b bool) bool { return a && b })
}

func boolean(field func(*Params) *bool, pick func(a, b bool) bool) func(*Negotiator, string) string {
	return func(n *Negotiator, offered string) string {
		if offered != "Yes" && offered != "No" {
			return Reject
		}
		v := pick(offered == "Yes", *field(&n.own))
		*field(&n.Params) = v
		if v {
			return "Yes"
		}
		return "No"
	}
}

// digest answers a list of digests, in the initiator's order of preference, with
// the first of it that this end has (RFC 7143 section 13.1).
func digest(field func(*Params) *bool) func(*Negotiator, string) string {
	return func(n *Negotiator, offered string) string {
		supported := []string{"None", "CRC32C"}
		if !*field(&n.own) {
			supported = supported[:1]
		}
		v, ok := Choose(offered, supported)
		if !ok {
			return Reject
		}
		*field(&n.Params) = v == "CRC32C"
		return v
	}
}

// taskReporting answers with the first value of the initiator's list that this end
// supports, which are all: RFC 7143 section 6.2.1 leaves the one who answers no
// preference, and every one of them is kept to at no cost to others.
func (n *Negotiator) taskReporting(offered string) string {
	v, ok := Choose(offered, taskReportings)
	if !ok {
		return Reject
	}
	n.Params.TaskReporting = TaskReporting(slices.Index(taskReportings, v))
	return v
}

// Choose returns the first item of a comma-separated list that is supported.
func Choose(list string, supported []string) (string, bool) {
	for item := range strings.SplitSeq(list, ",") {
		for _, s := range supported {
			if item == s {
				return s, true
			}
		}
	}
	return "", false
}

func always(value string) func(*Negotiator, string) string {
	return func(_ *Negotiator, offered string) string {
		if offered != "Yes" && offered != "No" {
			return Reject
		}
		return value
	}
}

func reject(*Negotiator, string) string { return Reject }
