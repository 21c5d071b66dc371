package ietconf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

const (
	// maxFile bounds a configuration, in bytes.
	maxFile = 16 << 20
	// maxLine bounds a line, in bytes without its end; IET's buffer holds
	// no more. A comment may be longer.
	maxLine = 4095
	// maxErrors is how many errors are collected before giving up.
	maxErrors = 20
	// maxWarnings is how many warnings are kept.
	maxWarnings = 1000
)

// ParseFile reads the configuration file at path.
func ParseFile(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	return Parse(path, f)
}

// Parse reads a configuration; name stands for it in errors. An error joins a
// [Problem] for each directive that is wrong, up to a bound.
func Parse(name string, r io.Reader) (*Config, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, maxFile)
	}
	p := newParser(name)
	lines := newLines(b)
	for lines.more && len(p.errs) < maxErrors {
		p.line = lines.number + 1
		words, err := lines.words()
		if err != nil {
			p.name = "a line"
			p.fail("%v", err)
		} else {
			p.directive(words)
		}
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, err
	}
	return &p.config, nil
}

// parser is the state of one Parse.
type parser struct {
	file   string
	line   int
	name   string // of the directive at hand
	config Config
	errs   []error
	// secret is that the line before was an account's: where its backslash
	// is missing, the next line is a password.
	secret bool

	// Where a name was first used, by the name in lower case.
	targets map[string]int
	// The same within the stanza at hand.
	users map[string]bool
	luns  map[uint16]int
}

func newParser(file string) *parser {
	return &parser{file: file, config: Config{File: file}, targets: map[string]int{}, users: map[string]bool{}}
}

// directive handles one line's words.
func (p *parser) directive(words []string) {
	if len(words) == 0 {
		return
	}
	afterAccount := p.secret
	p.secret = false
	d, known := directives[strings.ToLower(words[0])]
	if !known {
		p.name = fmt.Sprintf("%.64q", words[0])
		if afterAccount {
			p.name = "a word after an account"
		}
		p.fail("no such directive; see ietd.conf(5)")
		return
	}
	p.name = d.name
	p.secret = d.account
	args := words[1:]
	switch {
	case d.target && len(p.config.Targets) == 0:
		p.fail("belongs to a target: write it after a Target line")
	case d.global && len(p.config.Targets) != 0:
		p.fail("is global: write it before the first Target line")
	case slices.ContainsFunc(args, hasControl):
		p.fail("has a control character in the words after it, want plain text")
	case len(args) < d.args || len(args) > d.args && !d.more:
		// The words themselves may be a secret.
		p.fail("has %d words after it, want %s", len(args), d.usage)
		if d.opens {
			p.open("")
		}
	default:
		d.parse(p, args)
	}
}

func (p *parser) problem(format string, a ...any) Problem {
	return Problem{p.file, p.line, p.name, fmt.Sprintf(format, a...)}
}

func (p *parser) fail(format string, a ...any) {
	p.errs = append(p.errs, p.problem(format, a...))
}

func (p *parser) warn(format string, a ...any) {
	if len(p.config.Warnings) < maxWarnings {
		p.config.Warnings = append(p.config.Warnings, p.problem(format, a...))
	}
}

// target is the stanza at hand.
func (p *parser) target() *Target {
	return &p.config.Targets[len(p.config.Targets)-1]
}

// accounts are the stanza's, or the global ones before the first.
func (p *parser) accounts() *Accounts {
	if len(p.config.Targets) == 0 {
		return &p.config.Discovery
	}
	return &p.target().Accounts
}
