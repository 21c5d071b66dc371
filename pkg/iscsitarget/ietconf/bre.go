package ietconf

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxInterval is the most repetitions that POSIX asks for (RE_DUP_MAX).
	maxInterval = 255
	// maxProgram bounds the instructions of a matcher, and so the time of a
	// match to that times the length of a name.
	maxProgram = 16384
)

// compileBRE makes a matcher of a whole name, whatever its case, of a POSIX
// basic regular expression. Matching takes linear time. There are
//
//	. [...] * \{n\} \{n,\} \{n,m\} \( \) ^ $
//
// and GNU's \+ \? \|. Themselves mean + ? | { } ( ), a * with nothing before
// it, a ^ that is not first and a $ that is not last. Back-references are
// refused.
func compileBRE(s string) (*regexp.Regexp, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("is no UTF-8")
	}
	t := &translator{in: s, start: true, atom: -1}
	for t.pos < len(t.in) {
		if err := t.step(); err != nil {
			return nil, err
		}
	}
	if len(t.groups) > 0 {
		return nil, errors.New(`has \( without \)`)
	}
	text := `(?is)\A(?:` + string(t.out) + `)\z`
	if err := checkProgram(text); err != nil {
		return nil, err
	}
	return regexp.Compile(text)
}

func checkProgram(text string) error {
	tooLarge := errors.New("is too large a regular expression: repeat less")
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return tooLarge // the translation is well formed
	}
	program, err := syntax.Compile(re.Simplify())
	if err != nil || len(program.Inst) > maxProgram {
		return tooLarge
	}
	return nil
}

// translator turns a basic regular expression into one of Go's.
type translator struct {
	in  string
	pos int
	out []byte
	// atom is where in out begins what a * would repeat; -1: nothing.
	atom int
	// start is that nothing was read yet, or nothing since \( or \|.
	start  bool
	groups []int // where in out the open groups begin
}

// step reads what is at pos.
func (t *translator) step() error {
	r, size := utf8.DecodeRuneInString(t.in[t.pos:])
	switch {
	case r == '\\':
		return t.escape()
	case r == '[':
		return t.bracket()
	case r == '*' && t.atom >= 0:
		t.repeat("*")
	case r == '^' && t.start, r == '$' && t.last():
		t.out = append(t.out, byte(r))
		t.atom = -1
		t.start = false
	case r == '.':
		t.add(".")
	default:
		t.add(regexp.QuoteMeta(string(r)))
	}
	t.pos += size
	return nil
}

// last reports whether the character at pos ends a branch.
func (t *translator) last() bool {
	rest := t.in[t.pos+1:]
	return rest == "" || strings.HasPrefix(rest, `\)`) || strings.HasPrefix(rest, `\|`)
}

// add writes what matches one character.
func (t *translator) add(s string) {
	t.atom = len(t.out)
	t.out = append(t.out, s...)
	t.start = false
}

// repeat puts an operator behind the last atom.
func (t *translator) repeat(op string) {
	atom := string(t.out[t.atom:])
	if op == "*" && strings.HasSuffix(atom, ")*") {
		return // a** is a*, and a parenthesis that is meant has a backslash
	}
	t.out = append(t.out[:t.atom], "(?:"+atom+")"+op...)
}

// escape reads a backslash and what belongs to it.
func (t *translator) escape() error {
	rest := t.in[t.pos+1:]
	if rest == "" {
		return errors.New("ends with a backslash")
	}
	r, size := utf8.DecodeRuneInString(rest)
	t.pos += 1 + size
	switch {
	case r == '(':
		t.groups = append(t.groups, len(t.out))
		t.out = append(t.out, "(?:"...)
		t.atom, t.start = -1, true
	case r == ')':
		if len(t.groups) == 0 {
			return errors.New(`has \) without \(`)
		}
		t.atom, t.start = t.groups[len(t.groups)-1], false
		t.groups = t.groups[:len(t.groups)-1]
		t.out = append(t.out, ')')
	case r == '|':
		t.out = append(t.out, '|')
		t.atom, t.start = -1, true
	case r == '{', r == '+', r == '?':
		return t.quantify(r)
	case r >= '1' && r <= '9':
		return fmt.Errorf(`has the back-reference \%c, which is not supported: write out what it repeats`, r)
	case strings.ContainsRune("<>`'}", r), r < utf8.RuneSelf && isAlnum(byte(r)):
		return fmt.Errorf(`has \%c, which has no meaning here`, r)
	default:
		t.add(regexp.QuoteMeta(string(r)))
	}
	return nil
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// quantify reads \+, \? or the rest of \{n,m\}.
func (t *translator) quantify(r rune) error {
	if t.atom < 0 {
		return fmt.Errorf(`has \%c with nothing before it to repeat`, r)
	}
	if r != '{' {
		t.repeat(string(r))
		return nil
	}
	text, _, ok := strings.Cut(t.in[t.pos:], `\}`)
	if !ok {
		return errors.New(`has \{ without \}`)
	}
	t.pos += len(text) + len(`\}`)
	low, high, comma := strings.Cut(text, ",")
	n, err := interval(low)
	if err == nil && comma && high != "" {
		var m int
		if m, err = interval(high); err == nil && m < n {
			err = fmt.Errorf(`%d is less than %d`, m, n)
		}
	}
	if err != nil {
		return fmt.Errorf(`has \{%.16s\}, want \{n\}, \{n,\} or \{n,m\} up to %d`, text, maxInterval)
	}
	t.repeat("{" + text + "}")
	return nil
}

func interval(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	return int(n), err
}
