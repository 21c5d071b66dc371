package ietconf

import (
	"fmt"
	"strconv"
	"strings"
)

// rule is what values a parameter takes.
type rule interface {
	// parse returns the canonical value; false where it reported an error.
	parse(p *parser, word string) (string, bool)
	usage() string
}

// parameter is a directive of a stanza that holds one value.
type parameter struct {
	name, standard string // standard: the value where it is not given
	rule           rule
}

// parameters are those of ietd.conf(5) that concern sessions.
var parameters = []parameter{
	{"HeaderDigest", "None", digests{}},
	{"DataDigest", "None", digests{}},
	{"MaxConnections", "1", number{1, 65535}},
	{"InitialR2T", "Yes", yesNo{}},
	{"ImmediateData", "No", yesNo{}},
	{"MaxRecvDataSegmentLength", "8192", number{512, 1<<24 - 1}},
	{"MaxXmitDataSegmentLength", "8192", number{512, 1<<24 - 1}},
	{"MaxBurstLength", "262144", number{512, 1<<24 - 1}},
	{"FirstBurstLength", "65536", number{512, 1<<24 - 1}},
	{"DefaultTime2Wait", "2", number{0, 3600}},
	{"DefaultTime2Retain", "20", number{0, 3600}},
	{"MaxOutstandingR2T", "1", number{1, 65535}},
	{"DataPDUInOrder", "Yes", fixed{yesNo{}, "Yes"}},
	{"DataSequenceInOrder", "Yes", fixed{yesNo{}, "Yes"}},
	{"ErrorRecoveryLevel", "0", fixed{number{0, 2}, "0"}},
	{"OFMarker", "No", fixed{yesNo{}, "No"}},
	{"IFMarker", "No", fixed{yesNo{}, "No"}},
	{"OFMarkInt", "2048", fixed{number{1, 65535}, "2048"}},
	{"IFMarkInt", "2048", fixed{number{1, 65535}, "2048"}},
	{"NOPInterval", "0", number{0, 90}},
	{"NOPTimeout", "0", number{0, 90}},
	{"Wthreads", "8", number{1, 128}},
	{"QueuedCommands", "32", number{1, 256}},
	{"Type", "0", fixed{number{0, 255}, "0"}},
}

// Default returns the value of a parameter that a stanza does not give; it is
// empty for a name that is no parameter.
func Default(name string) string {
	for _, k := range parameters {
		if k.name == name {
			return k.standard
		}
	}
	return ""
}

// parse keeps the value in the stanza at hand.
func (k parameter) parse(p *parser, args []string) {
	if v, ok := k.rule.parse(p, args[0]); ok {
		p.target().Parameters[k.name] = v
	}
}

// yesNo is Yes or No, in this case alone.
type yesNo struct{}

func (yesNo) usage() string { return "Yes or No" }

func (r yesNo) parse(p *parser, word string) (string, bool) {
	if word != "Yes" && word != "No" {
		p.fail("%.64q, want %s", word, r.usage())
		return "", false
	}
	return word, true
}

// number is from min to max.
type number struct{ min, max int64 }

func (r number) usage() string { return fmt.Sprintf("a number from %d to %d", r.min, r.max) }

func (r number) parse(p *parser, word string) (string, bool) {
	n, err := strconv.ParseInt(word, 0, 64)
	if err != nil || strings.Contains(word, "_") {
		p.fail("%.64q, want %s", word, r.usage())
		return "", false
	}
	if within := min(max(n, r.min), r.max); within != n {
		p.warn("%d is taken for %d: want %s", n, within, r.usage())
		n = within
	}
	return strconv.FormatInt(n, 10), true
}

// digests is a list of None and CRC32C.
type digests struct{}

func (digests) usage() string { return "None, CRC32C or both with a comma between" }

func (r digests) parse(p *parser, word string) (string, bool) {
	for _, d := range strings.Split(word, ",") {
		if d != "None" && d != "CRC32C" {
			p.fail("%.64q, want %s", word, r.usage())
			return "", false
		}
	}
	return word, true
}

// fixed takes what rule takes and makes one value of it.
type fixed struct {
	rule
	value string
}

func (r fixed) parse(p *parser, word string) (string, bool) {
	v, ok := r.rule.parse(p, word)
	if ok && v != r.value {
		p.warn("%s is taken for %s, the only value supported", v, r.value)
	}
	return r.value, ok
}
