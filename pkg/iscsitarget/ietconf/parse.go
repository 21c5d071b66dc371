package ietconf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	// maxFile bounds a configuration, in bytes.
	maxFile = 16 << 20
	// maxErrors is how many errors are collected before giving up.
	maxErrors = 20
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
	p := &parser{file: name}
	lines := splitLines(string(b))
	for i := 0; i < len(lines) && len(p.errs) < maxErrors; {
		words, next := logicalLine(lines, i)
		p.line = i + 1
		p.directive(words)
		i = next
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, err
	}
	return &p.config, nil
}

// splitLines takes \n and \r\n for the end of a line.
func splitLines(s string) []string {
	return strings.Split(strings.ReplaceAll(s, "\r\n", "\n"), "\n")
}

// logicalLine returns the words of the line at i and of those that continue
// it, and the index of the line after them. A comment is not continued.
func logicalLine(lines []string, i int) (words []string, next int) {
	var b strings.Builder
	for first := i; i < len(lines); i++ {
		if i == first && strings.HasPrefix(strings.TrimSpace(lines[i]), "#") {
			return nil, i + 1
		}
		line, continued := strings.CutSuffix(lines[i], `\`)
		b.WriteString(line)
		if !continued {
			i++
			break
		}
	}
	return strings.Fields(b.String()), i
}

// parser is the state of one Parse.
type parser struct {
	file   string
	line   int
	name   string // of the directive at hand
	config Config
	errs   []error
}

// directive handles one line's words.
func (p *parser) directive(words []string) {
	if len(words) == 0 {
		return
	}
	d, known := directives[strings.ToLower(words[0])]
	p.name = d.name
	if !known {
		p.name = fmt.Sprintf("%.64q", words[0])
		p.fail("no such directive; see ietd.conf(5)")
		return
	}
	args := words[1:]
	switch {
	case d.target && len(p.config.Targets) == 0:
		p.fail("belongs to a target: write it after a Target line")
	case d.global && len(p.config.Targets) != 0:
		p.fail("is global: write it before the first Target line")
	case d.args > 0 && len(args) != d.args:
		// The words themselves may be a secret.
		p.fail("has %d words after it, want %s", len(args), d.usage)
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
	p.config.Warnings = append(p.config.Warnings, p.problem(format, a...))
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
