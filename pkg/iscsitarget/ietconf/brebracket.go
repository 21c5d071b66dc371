package ietconf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// classes are the character classes of POSIX.
var classes = []string{"alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "xdigit"}

var errBracket = errors.New("has [ without ]")

// bracketEnd returns the index after the ] that ends the bracket expression at
// i; the length of s if none does.
func bracketEnd(s string, i int) int {
	i++
	if strings.HasPrefix(s[i:], "^") {
		i++
	}
	for first := true; i < len(s); first = false {
		switch {
		case s[i] == ']' && !first:
			return i + 1
		case s[i] == '[' && i+1 < len(s) && strings.IndexByte(":=.", s[i+1]) >= 0:
			end := strings.Index(s[i+2:], s[i+1:i+2]+"]")
			if end < 0 {
				return len(s)
			}
			i += 2 + end + 2
		default:
			i++
		}
	}
	return len(s)
}

// bracket reads a bracket expression.
func (t *translator) bracket() error {
	end := bracketEnd(t.in, t.pos)
	body := t.in[t.pos+1 : end]
	body, closed := strings.CutSuffix(body, "]")
	if !closed || body == "" || body == "^" {
		return errBracket // of [[:alpha:] the ] is the class's
	}
	t.pos = end
	out := "["
	if rest, not := strings.CutPrefix(body, "^"); not {
		out, body = "[^", rest
	}
	for body != "" {
		member, rest, err := bracketMember(body)
		if err != nil {
			return err
		}
		out += member
		body = rest
	}
	t.add(out + "]")
	return nil
}

// bracketMember translates the character, range or class that body begins
// with, and returns what follows.
func bracketMember(body string) (member, rest string, err error) {
	low, class, rest, err := bracketElement(body)
	if err != nil || class != "" {
		return class, rest, err
	}
	if !strings.HasPrefix(rest, "-") || rest == "-" {
		return fmt.Sprintf(`\x{%x}`, low), rest, nil
	}
	high, class, rest, err := bracketElement(rest[1:])
	switch {
	case err != nil:
		return "", "", err
	case class != "":
		return "", "", errors.New("has a range in [ ] that ends with a class")
	case high < low:
		return "", "", fmt.Errorf("has the range %c-%c in [ ], want the lower end first", low, high)
	}
	return fmt.Sprintf(`\x{%x}-\x{%x}`, low, high), rest, nil
}

// bracketElement reads a character, also as [.x.] or [=x=], or a class.
func bracketElement(body string) (r rune, class, rest string, err error) {
	if len(body) < 2 || body[0] != '[' || strings.IndexByte(":=.", body[1]) < 0 {
		r, size := utf8.DecodeRuneInString(body)
		return r, "", body[size:], nil
	}
	name, rest, ok := strings.Cut(body[2:], body[1:2]+"]")
	switch {
	case !ok:
		return 0, "", "", errBracket
	case body[1] == ':' && slices.Contains(classes, name):
		return 0, "[:" + name + ":]", rest, nil
	case body[1] == ':':
		return 0, "", "", fmt.Errorf("has no class [:%.16s:]; there are %s", name, strings.Join(classes, ", "))
	case utf8.RuneCountInString(name) != 1:
		return 0, "", "", fmt.Errorf("has [%c%.16s%c] in [ ], want one character", body[1], name, body[1])
	}
	r, _ = utf8.DecodeRuneInString(name)
	return r, "", rest, nil
}
