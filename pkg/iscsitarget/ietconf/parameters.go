package ietconf

import (
	"fmt"
	"strconv"
	"strings"
)

// setting is a directive of a stanza that holds one value.
type setting struct {
	name, standard string // standard: the value where it is not given
	rule           rule
	// keep and get are the field that holds a canonical value; nil: it is
	// in Target.Parameters.
	keep func(*Target, string)
	get  func(*Target) string
}

// settings are in the order in which they are written: first what the Target
// has a field for.
var settings = append([]setting{
	{"Alias", "", text{}, func(t *Target, v string) { t.Alias = v }, func(t *Target) string { return t.Alias }},
	{"MaxSessions", "0", number{0, 65535},
		func(t *Target, v string) { t.MaxSessions, _ = strconv.Atoi(v) },
		func(t *Target) string { return strconv.Itoa(t.MaxSessions) }},
}, parameters...)

// parameters are those of ietd.conf(5) that concern sessions.
var parameters = []setting{
	{name: "HeaderDigest", standard: "None", rule: digests{}},
	{name: "DataDigest", standard: "None", rule: digests{}},
	{name: "MaxConnections", standard: "1", rule: number{1, 65535}},
	{name: "InitialR2T", standard: "Yes", rule: yesNo{}},
	{name: "ImmediateData", standard: "No", rule: yesNo{}},
	{name: "MaxRecvDataSegmentLength", standard: "8192", rule: number{512, 1<<24 - 1}},
	{name: "MaxXmitDataSegmentLength", standard: "8192", rule: number{512, 1<<24 - 1}},
	{name: "MaxBurstLength", standard: "262144", rule: number{512, 1<<24 - 1}},
	{name: "FirstBurstLength", standard: "65536", rule: number{512, 1<<24 - 1}},
	{name: "DefaultTime2Wait", standard: "2", rule: number{0, 3600}},
	{name: "DefaultTime2Retain", standard: "20", rule: number{0, 3600}},
	{name: "MaxOutstandingR2T", standard: "1", rule: number{1, 65535}},
	{name: "DataPDUInOrder", standard: "Yes", rule: fixed{yesNo{}, "Yes"}},
	{name: "DataSequenceInOrder", standard: "Yes", rule: fixed{yesNo{}, "Yes"}},
	{name: "ErrorRecoveryLevel", standard: "0", rule: number{0, 2}},
	{name: "OFMarker", standard: "No", rule: fixed{yesNo{}, "No"}},
	{name: "IFMarker", standard: "No", rule: fixed{yesNo{}, "No"}},
	{name: "OFMarkInt", standard: "2048", rule: fixed{number{1, 65535}, "2048"}},
	{name: "IFMarkInt", standard: "2048", rule: fixed{number{1, 65535}, "2048"}},
	{name: "NOPInterval", standard: "0", rule: number{0, 90}},
	{name: "NOPTimeout", standard: "0", rule: number{0, 90}},
	{name: "Wthreads", standard: "8", rule: number{1, 128}},
	{name: "QueuedCommands", standard: "32", rule: number{1, 256}},
	{name: "Type", standard: "0", rule: fixed{number{0, 255}, "0"}},
}

// Parameters returns the names that [Target.Parameters] may hold, in the order
// in which ietd.conf(5) has them.
func Parameters() []string {
	names := make([]string, len(parameters))
	for i, s := range parameters {
		names[i] = s.name
	}
	return names
}

// Default returns the value of a directive of a stanza that is not given; it
// is empty for Alias and for a name that is none. Case counts.
func Default(name string) string {
	for _, s := range settings {
		if s.name == name {
			return s.standard
		}
	}
	return ""
}

// findSetting wants a name, whatever its case.
func findSetting(name string) (setting, error) {
	for _, s := range settings {
		if strings.EqualFold(s.name, name) {
			return s, nil
		}
	}
	return setting{}, fmt.Errorf("%.64q: no such parameter of a target; see ietd.conf(5)", name)
}

// SetParameter returns the canonical form of a value of a parameter,
// MaxSessions or Alias: Yes or No, a decimal number, a list. The name may have
// any case. A warning says what was not taken as written, and is empty
// otherwise; an error says what would be right.
func SetParameter(name, value string) (canonical, warning string, err error) {
	s, err := findSetting(name)
	if err != nil {
		return "", "", err
	}
	return s.check(value)
}

// check is the rule's, with the name in the warning and in the error.
func (s setting) check(value string) (canonical, warning string, err error) {
	canonical, warning, err = s.rule.check(value)
	if err != nil {
		return "", "", fmt.Errorf("%s: %w", s.name, err)
	}
	if warning != "" {
		warning = s.name + ": " + warning
	}
	return canonical, warning, nil
}

// Set takes one directive of a stanza by the rules of ietd.conf: a parameter,
// MaxSessions or Alias. The name may have any case. The entry of t.Parameters
// is replaced in the map that t has. See [SetParameter] for warning and error;
// after an error t is as before.
func (t *Target) Set(name, value string) (warning string, err error) {
	s, err := findSetting(name)
	if err != nil {
		return "", err
	}
	v, warning, err := s.check(value)
	if err != nil {
		return "", err
	}
	t.keep(s, v)
	return warning, nil
}

// keep holds a canonical value.
func (t *Target) keep(s setting, v string) {
	if s.keep != nil {
		s.keep(t, v)
		return
	}
	if t.Parameters == nil {
		t.Parameters = map[string]string{}
	}
	t.Parameters[s.name] = v
}

// parse keeps the value in the stanza at hand.
func (s setting) parse(p *parser, args []string) {
	v, warning, err := s.rule.check(strings.Join(args, " "))
	if err != nil {
		p.fail("%v", err)
		return
	}
	if warning != "" {
		p.warn("%s", warning)
	}
	p.target().keep(s, v)
}
