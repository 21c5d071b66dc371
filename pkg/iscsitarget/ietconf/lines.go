package ietconf

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// lines goes over the lines of a text; \n and \r\n end one.
type lines struct {
	rest   []byte
	more   bool // next has one
	number int  // of the last one that next returned, from 1
}

// newLines leaves out the mark that some editors put before UTF-8.
func newLines(text []byte) *lines {
	return &lines{rest: bytes.TrimPrefix(text, []byte("\ufeff")), more: true}
}

// next returns a line without its end; more must be true.
func (l *lines) next() string {
	var line []byte
	line, l.rest, l.more = bytes.Cut(l.rest, []byte("\n"))
	l.number++
	return string(bytes.TrimSuffix(line, []byte("\r")))
}

// words returns those of the next line and of the lines that continue it. A
// comment is not continued and has none.
func (l *lines) words() ([]string, error) {
	line := l.next()
	if isComment(line) {
		return nil, nil
	}
	var b strings.Builder
	var err error
	for {
		text, continued := strings.CutSuffix(line, `\`)
		if len(line) > maxLine && err == nil {
			err = fmt.Errorf("has %d bytes, at most %d are allowed: end it with a backslash and go on in the next one", len(line), maxLine)
		}
		b.WriteString(text)
		if !continued || !l.more {
			break
		}
		line = l.next()
	}
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(b.String(), isBlank), nil
}

// isComment reports whether the first word of a line begins with #.
func isComment(line string) bool {
	return strings.HasPrefix(strings.TrimLeftFunc(line, isBlank), "#")
}

// isBlank reports what separates words: isspace(3) of the C locale.
func isBlank(r rune) bool {
	return r == ' ' || r == '\t' || r == '\v' || r == '\f' || r == '\r'
}

// hasControl reports whether s has control characters.
func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

// isWord reports whether s can be one word of a line.
func isWord(s string) bool {
	return s != "" && !hasControl(s) && !strings.ContainsFunc(s, isBlank)
}
