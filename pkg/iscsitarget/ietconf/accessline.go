package ietconf

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

const (
	// everything stands for each target, name and address.
	everything = "ALL"
	// maxItem bounds a regular expression in bytes; a name has 223.
	maxItem = 1024
)

// accessFile is a file of access control.
type accessFile struct {
	path  string
	lines []*accessLine
}

// accessLine is what a line says. Its items are made once it decides.
type accessLine struct {
	number int
	// target is in lower case; everything: each.
	target string
	text   string // the items
	// bad is why the line cannot be understood.
	bad   error
	names bool // regular expressions are allowed

	once  sync.Once
	items []accessItem
}

// accessItem is one item: all, a prefix or a name.
type accessItem struct {
	all    bool
	prefix netip.Prefix
	name   *regexp.Regexp
}

// parseAccess splits a file into its lines.
func parseAccess(path string, content []byte) *accessFile {
	f := &accessFile{path: path}
	names := filepath.Base(path) != targetsAllow
	for lines := newLines(content); lines.more; {
		line := strings.TrimFunc(lines.next(), isBlank)
		if line == "" || isComment(line) {
			continue
		}
		f.lines = append(f.lines, newAccessLine(lines.number, line, names))
	}
	return f
}

func newAccessLine(number int, line string, names bool) *accessLine {
	l := &accessLine{number: number, names: names}
	l.target, l.text = line, ""
	if i := strings.IndexFunc(line, isBlank); i >= 0 {
		l.target, l.text = line[:i], strings.TrimLeftFunc(line[i:], isBlank)
	}
	switch {
	case len(line) > maxLine:
		l.bad = fmt.Errorf("a line of %d bytes, at most %d are allowed", len(line), maxLine)
	case hasControl(l.target) || strings.Contains(l.target, ","):
		l.bad = errors.New("want a target's name or ALL, a blank, and items with commas between")
	case l.target != everything && strings.EqualFold(l.target, everything):
		l.bad = fmt.Errorf("%q, want ALL in capitals", l.target)
	}
	if l.bad != nil {
		l.target = everything // nobody knows whom it is for
		return l
	}
	if l.target != everything {
		l.target = strings.ToLower(l.target)
	}
	if l.text == "" {
		l.bad = errors.New("no item, want ALL, an address or the like after the target")
	}
	return l
}

// match reports whether the first line that is for target matches.
func (f *accessFile) match(target string, who peer) (bool, error) {
	target = strings.ToLower(target)
	for _, l := range f.lines {
		if l.target != everything && l.target != target {
			continue
		}
		if err := l.check(f.path); err != nil {
			return false, err
		}
		return l.match(f.path, who)
	}
	return false, nil
}

// check makes the items; an error says what is wrong with the line.
func (l *accessLine) check(path string) error {
	l.once.Do(func() {
		if l.bad != nil {
			return
		}
		for _, word := range splitItems(l.text) {
			item, err := parseItem(word, l.names)
			if err != nil {
				l.bad = fmt.Errorf("item %.64q: %w", word, err)
				return
			}
			l.items = append(l.items, item)
		}
	})
	if l.bad != nil {
		return l.problem(path, l.bad)
	}
	return nil
}

func (l *accessLine) problem(path string, err error) error {
	return Problem{File: path, Line: l.number, Directive: shown(l.target), Message: err.Error()}
}

func (l *accessLine) match(path string, who peer) (bool, error) {
	for _, item := range l.items {
		switch {
		case item.all, item.name != nil && item.name.MatchString(who.name):
			return true, nil
		case item.prefix.IsValid() && !who.addr.IsValid():
			return false, l.problem(path, errors.New("is about addresses, and the peer has none"))
		case item.prefix.Contains(who.addr):
			return true, nil
		}
	}
	return false, nil
}

// splitItems cuts at commas, but for those within \{ \} and [ ].
func splitItems(s string) []string {
	var items []string
	start := 0
	for i := 0; i < len(s); {
		switch {
		case s[i] == ',':
			items = append(items, strings.TrimFunc(s[start:i], isBlank))
			i++
			start = i
		case s[i] == '[':
			i = bracketEnd(s, i)
		case strings.HasPrefix(s[i:], `\{`):
			end := strings.Index(s[i:], `\}`)
			if end < 0 {
				end = 0
			}
			i += end + 2
		case s[i] == '\\':
			i += 2
		default:
			i++
		}
	}
	return append(items, strings.TrimFunc(s[start:], isBlank))
}

// parseItem reads one item; the error says what would be right.
func parseItem(s string, names bool) (accessItem, error) {
	switch {
	case s == everything:
		return accessItem{all: true}, nil
	case strings.EqualFold(s, everything):
		return accessItem{}, errors.New("want ALL in capitals")
	case s == "":
		return accessItem{}, errors.New("is empty: leave its comma out")
	case len(s) > maxItem:
		return accessItem{}, fmt.Errorf("%d bytes, at most %d are allowed", len(s), maxItem)
	case !isWord(s):
		return accessItem{}, errors.New("has a blank or a control character, want commas between items")
	}
	if !names || isAddress(s) {
		prefix, err := parsePrefix(s)
		return accessItem{prefix: prefix}, err
	}
	name, err := compileBRE(s)
	return accessItem{name: name}, err
}

// isAddress reports whether an item is meant for an address, right or wrong,
// and not for a regular expression, which would silently match no name: it
// begins with a number and a dot, or it is hexadecimal digits with a colon or
// digits with a dot, in brackets or not, with bits or a zone after them or not.
func isAddress(s string) bool {
	inner, brackets := strings.CutPrefix(s, "[")
	if i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }); i > 0 && s[i] == '.' {
		return true
	}
	end := strings.IndexFunc(inner, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF:.", r) })
	tail := ""
	if end >= 0 {
		inner, tail = inner[:end], inner[end:]
	}
	if tail != "" && !strings.ContainsRune("]/%", rune(tail[0])) {
		return false
	}
	if strings.Contains(inner, ":") {
		return true
	}
	digits := strings.Trim(inner, "0123456789.") == "" && strings.Trim(inner, ".") != ""
	if brackets {
		// [1.2] alone is no address, but less still a name.
		return digits && strings.Contains(inner, ".") && (tail == "]" || strings.HasPrefix(tail, "]/"))
	}
	return digits
}

const wantAddress = "want an address such as 192.0.2.1 or [2001:db8::1], or address/bits"

// parsePrefix reads an address, or address/bits.
func parsePrefix(s string) (netip.Prefix, error) {
	text, bits, cut := strings.Cut(s, "/")
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok || !strings.Contains(text, ":") {
			return netip.Prefix{}, errors.New(wantAddress)
		}
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, errors.New(wantAddress)
	}
	if addr.Zone() != "" {
		return netip.Prefix{}, errors.New("has a zone: leave it out from the % on")
	}
	n := addr.BitLen()
	if cut {
		if n, err = parseBits(bits, addr.BitLen()); err != nil {
			return netip.Prefix{}, err
		}
	}
	if addr.Is4In6() {
		if n < 96 {
			return netip.Prefix{}, errors.New("is IPv4 within IPv6 with fewer than 96 bits, want an IPv4 address/bits")
		}
		addr, n = addr.Unmap(), n-96
	}
	prefix := netip.PrefixFrom(addr, n)
	if masked := prefix.Masked(); addr.Is4() && masked.Addr() != addr {
		return netip.Prefix{}, fmt.Errorf("has bits set after its %dth, want %s", n, masked)
	}
	return prefix.Masked(), nil
}

func parseBits(s string, most int) (int, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || int(n) > most {
		return 0, fmt.Errorf("/%.16s, want 0 to %d bits", s, most)
	}
	return int(n), nil
}
