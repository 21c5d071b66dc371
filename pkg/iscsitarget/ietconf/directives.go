package ietconf

import (
	"errors"
	"fmt"
	"strings"
)

// directive is one word that a line may begin with.
type directive struct {
	name    string
	usage   string
	args    int  // words that must follow
	more    bool // and any number of others
	global  bool // only before the first Target
	target  bool // only after it
	account bool // its words are secrets
	opens   bool // a stanza
	parse   func(*parser, []string)
}

// directives by their name in lower case.
var directives = func() map[string]directive {
	table := map[string]directive{}
	for _, d := range []directive{
		{name: "iSNSServer", usage: "a host", args: 1, global: true, parse: parseISNSServer},
		{name: "iSNSAccessControl", usage: "Yes or No", args: 1, global: true, parse: parseISNSAccessControl},
		{name: "IncomingUser", usage: "a user and a password", args: 2, account: true, parse: parseIncomingUser},
		{name: "OutgoingUser", usage: "a user and a password", args: 2, account: true, parse: parseOutgoingUser},
		{name: "Target", usage: "an iSCSI name", args: 1, opens: true, parse: parseTarget},
		{name: "Lun", usage: "a number and options", args: 2, target: true, parse: parseLUN},
	} {
		table[strings.ToLower(d.name)] = d
	}
	for _, s := range settings {
		table[strings.ToLower(s.name)] = directive{
			name: s.name, usage: s.rule.usage(), args: 1, more: s.rule.words(), target: true, parse: s.parse,
		}
	}
	return table
}()

const (
	// maxName is the longest iSCSI name in bytes (RFC 7143 section 4.2.7.1).
	maxName = 223
	// maxText is the longest value of an iSCSI key in bytes (section 6.1);
	// IET's buffers for users and passwords hold as much.
	maxText = 255
)

func parseISNSServer(p *parser, args []string) {
	if err := checkHost(args[0]); err != nil {
		p.fail("%v", err)
		return
	}
	p.config.ISNSServer = args[0]
}

func checkHost(host string) error {
	if len(host) > maxText || !isWord(host) {
		return fmt.Errorf("a name of %d bytes, want a host name or address of at most %d without blanks", len(host), maxText)
	}
	return nil
}

func parseISNSAccessControl(p *parser, args []string) {
	v, _, err := yesNo{}.check(args[0])
	if err != nil {
		p.fail("%v", err)
		return
	}
	p.config.ISNSAccessControl = v == "Yes"
}

func parseTarget(p *parser, args []string) {
	name := args[0]
	key := strings.ToLower(name)
	if line, there := p.targets[key]; there {
		p.fail("%.64q is there already, in line %d", name, line)
	} else {
		p.targets[key] = p.line
	}
	if err := checkTargetName(name); err != nil {
		p.fail("%v", err)
	}
	p.open(name)
}

// open begins a stanza: also where its name is wrong, so that its directives
// are not reported too.
func (p *parser) open(name string) {
	p.config.Targets = append(p.config.Targets, Target{Name: name, Line: p.line, Parameters: map[string]string{}})
	p.users, p.luns = map[string]bool{}, map[uint16]int{}
}

func checkTargetName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("a name of %d bytes, at most %d are allowed", len(name), maxName)
	case !isWord(name):
		return errors.New("want a name without blanks and control characters")
	}
	return nil
}
