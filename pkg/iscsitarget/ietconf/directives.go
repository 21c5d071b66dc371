package ietconf

import (
	"strconv"
	"strings"
)

// directive is one word that a line may begin with.
type directive struct {
	name   string
	usage  string
	args   int  // words that must follow; 0: parse counts them itself
	global bool // only before the first Target
	target bool // only after it
	parse  func(*parser, []string)
}

// directives by their name in lower case.
var directives = func() map[string]directive {
	table := map[string]directive{}
	for _, d := range []directive{
		{name: "iSNSServer", usage: "a host", args: 1, global: true, parse: parseISNSServer},
		{name: "iSNSAccessControl", usage: "Yes or No", args: 1, global: true, parse: parseISNSAccessControl},
		{name: "IncomingUser", usage: "a user and a password", args: 2, parse: parseIncomingUser},
		{name: "OutgoingUser", usage: "a user and a password", args: 2, parse: parseOutgoingUser},
		{name: "Target", usage: "an iSCSI name", args: 1, parse: parseTarget},
		{name: "Alias", usage: "a name", target: true, parse: parseAlias},
		{name: "Lun", usage: "a number and options", args: 2, target: true, parse: parseLUN},
		{name: "MaxSessions", usage: "a number", args: 1, target: true, parse: parseMaxSessions},
	} {
		table[strings.ToLower(d.name)] = d
	}
	for _, k := range parameters {
		table[strings.ToLower(k.name)] = directive{name: k.name, usage: k.rule.usage(), args: 1, target: true, parse: k.parse}
	}
	return table
}()

func parseISNSServer(p *parser, args []string) { p.config.ISNSServer = args[0] }

func parseISNSAccessControl(p *parser, args []string) {
	v, ok := yesNo{}.parse(p, args[0])
	if ok {
		p.config.ISNSAccessControl = v == "Yes"
	}
}

func parseIncomingUser(p *parser, args []string) {
	a := p.accounts()
	for _, known := range a.Incoming {
		if known.User == args[0] {
			p.fail("user %.64q is there already: give each one name", args[0])
			return
		}
	}
	a.Incoming = append(a.Incoming, Account{args[0], args[1]})
}

func parseOutgoingUser(p *parser, args []string) {
	a := p.accounts()
	if a.Outgoing != nil {
		p.warn("replaces an earlier one: there is one per target")
	}
	a.Outgoing = &Account{args[0], args[1]}
}

// maxName is the longest iSCSI name in bytes (RFC 7143 section 4.2.7.1).
const maxName = 223

func parseTarget(p *parser, args []string) {
	name := args[0]
	for _, t := range p.config.Targets {
		if strings.EqualFold(t.Name, name) {
			p.fail("%.64q is there already, in line %d", name, t.Line)
		}
	}
	if len(name) > maxName {
		p.fail("a name of %d bytes, at most %d are allowed", len(name), maxName)
	}
	// The stanza is opened also where its name is wrong, so that its
	// directives are not reported too.
	p.config.Targets = append(p.config.Targets, Target{Name: name, Line: p.line, Parameters: map[string]string{}})
}

func parseAlias(p *parser, args []string) {
	if len(args) == 0 {
		p.fail("has no words after it, want a name")
		return
	}
	p.target().Alias = strings.Join(args, " ")
}

func parseMaxSessions(p *parser, args []string) {
	v, ok := number{0, 65535}.parse(p, args[0])
	if n, err := strconv.Atoi(v); ok && err == nil {
		p.target().MaxSessions = n
	}
}
