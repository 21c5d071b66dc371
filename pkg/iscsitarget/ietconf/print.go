package ietconf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Format writes c as an ietd.conf that [Parse] reads into an equal Config
// (lines, the file's name and warnings aside). Passwords are in it, so the
// file is for its owner alone. What the file could not hold is an error that
// names it, and nothing is written then.
func Format(w io.Writer, c *Config) error {
	text, err := render(c)
	if err != nil {
		return err
	}
	// What cannot be read again must not take the place of what can.
	again, err := Parse("ietd.conf", bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("the configuration cannot be written: %w", err)
	}
	if second, err := render(again); err != nil || !bytes.Equal(text, second) {
		return errors.Join(errors.New("the configuration would be read as another one"), err)
	}
	_, err = w.Write(text)
	return err
}

// render is the text of Format. No line needs to be continued: every value is
// bounded far below maxLine.
func render(c *Config) ([]byte, error) {
	p := &printer{}
	if c.ISNSServer != "" {
		p.check("iSNSServer", checkHost(c.ISNSServer))
		p.line("", "iSNSServer", c.ISNSServer)
	}
	if c.ISNSAccessControl {
		p.line("", "iSNSAccessControl", "Yes")
	}
	p.accounts("", "discovery", c.Discovery)
	seen := map[string]bool{}
	for i := range c.Targets {
		t := &c.Targets[i]
		p.check("Target", checkTargetName(t.Name))
		if key := strings.ToLower(t.Name); seen[key] {
			p.check(t.Name, errors.New("is there twice"))
		} else {
			seen[key] = true
		}
		if p.text.Len() > 0 {
			p.text.WriteByte('\n')
		}
		p.line("", "Target", t.Name)
		p.target(t)
	}
	return p.text.Bytes(), errors.Join(p.errs...)
}

// printer is the state of one Format.
type printer struct {
	text bytes.Buffer
	errs []error
}

// check keeps an error about what is named.
func (p *printer) check(what string, err error) {
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("%.256s: %w", what, err))
	}
}

// line writes a directive. A blank follows a backslash at the end, which would
// continue the line otherwise.
func (p *printer) line(indent, name, value string) {
	end := "\n"
	if strings.HasSuffix(value, `\`) {
		end = " \n"
	}
	p.text.WriteString(indent + name + " " + value + end)
}

// accounts writes those of a target, or the global ones.
func (p *printer) accounts(indent, of string, a Accounts) {
	seen := map[string]bool{}
	for _, u := range a.Incoming {
		p.check(of+": IncomingUser", CheckAccount(u))
		if seen[u.User] {
			p.check(of+": IncomingUser "+u.User, errors.New("is there twice"))
		}
		seen[u.User] = true
		p.line(indent, "IncomingUser", u.User+" "+u.Password)
	}
	if a.Outgoing != nil {
		p.check(of+": OutgoingUser", CheckAccount(*a.Outgoing))
		p.line(indent, "OutgoingUser", a.Outgoing.User+" "+a.Outgoing.Password)
	}
}

// target writes what is under a Target line.
func (p *printer) target(t *Target) {
	const indent = "\t"
	p.accounts(indent, t.Name, t.Accounts)
	for i := range t.LUNs {
		options, err := lunText(t.LUNs[i])
		p.check(t.Name+": Lun", err)
		p.line(indent, "Lun", fmt.Sprintf("%d %s", t.LUNs[i].Number, options))
	}
	for _, s := range settings {
		v, given := t.value(s)
		if !given {
			continue
		}
		canonical, _, err := s.check(v)
		if err == nil && canonical != v {
			err = fmt.Errorf("%s: %.64q would be read as %.64q", s.name, v, canonical)
		}
		p.check(t.Name, err)
		p.line(indent, s.name, canonical)
	}
	p.check(t.Name, t.unknown())
}

// value is what a stanza has for a setting; false: the default.
func (t *Target) value(s setting) (string, bool) {
	if s.get != nil {
		v := s.get(t)
		return v, v != s.standard
	}
	v, given := t.Parameters[s.name]
	if !given {
		v = s.standard
	}
	return v, given
}

// unknown returns an error for parameters that are none.
func (t *Target) unknown() error {
	names := Parameters()
	for name := range t.Parameters {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%.64q: no such parameter", name)
		}
	}
	return nil
}

// lunText is the options of a Lun line: all of them, or where that would be
// too long those that are not at their default.
func lunText(l LUN) (string, error) {
	if l.Number > maxLUN {
		return "", fmt.Errorf("%d, want a number from 0 to %d", l.Number, maxLUN)
	}
	l.defaults()
	var all, short []string
	for _, o := range lunOptions {
		v := o.get(&l)
		switch {
		case v == "":
			continue
		case !isWord(v) || strings.Contains(v, ","):
			return "", fmt.Errorf("%d: option %s=%.64q has a blank, a comma or a control character, want one without", l.Number, o.name, v)
		}
		word := o.name + "=" + v
		if v != o.standard || !o.ours {
			all = append(all, word)
		}
		if v != o.standard {
			short = append(short, word)
		}
	}
	text := strings.Join(all, ",")
	if len(text) > maxLUNOption {
		text = strings.Join(short, ",")
	}
	if _, err := ParseLUN(l.Number, text); err != nil {
		return "", err
	}
	return text, nil
}

// shown is a value for the eye: quoted where it is more than printable characters.
func shown(v string) string {
	if !utf8.ValidString(v) || strings.ContainsFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(v)
	}
	return v
}
