package ietconf

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rule is what values a directive takes.
type rule interface {
	// check returns the canonical value, and a warning where it is not
	// what was written.
	check(value string) (canonical, warning string, err error)
	// usage completes "want ...".
	usage() string
	// words reports whether the value may be several words.
	words() bool
}

// oneWord is of the rules that take no blanks.
type oneWord struct{}

func (oneWord) words() bool { return false }

// yesNo is Yes or No, in this case alone.
type yesNo struct{ oneWord }

func (yesNo) usage() string { return "Yes or No" }

func (r yesNo) check(value string) (string, string, error) {
	if value != "Yes" && value != "No" {
		return "", "", fmt.Errorf("%.64q, want %s", value, r.usage())
	}
	return value, "", nil
}

// number is from min to max.
type number struct{ min, max int64 }

func (number) words() bool { return false }

func (r number) usage() string { return fmt.Sprintf("a number from %d to %d", r.min, r.max) }

func (r number) check(value string) (string, string, error) {
	n, err := parseNumber(value)
	if err != nil {
		return "", "", fmt.Errorf("%.64q, want %s", value, r.usage())
	}
	warning := ""
	if within := min(max(n, r.min), r.max); within != n {
		warning = fmt.Sprintf("%d is taken for %d: want %s", n, within, r.usage())
		n = within
	}
	return strconv.FormatInt(n, 10), warning, nil
}

// errNumber is of what is no number.
var errNumber = errors.New("not a number")

// parseNumber takes what strtol(3) takes whole: decimal, octal (0...) or
// hexadecimal (0x...), with a sign or without.
func parseNumber(s string) (int64, error) {
	digits := strings.TrimLeft(s, "+-")
	hex := strings.HasPrefix(strings.ToLower(digits), "0x")
	if !hex && strings.ContainsFunc(digits, func(r rune) bool { return r < '0' || r > '9' }) || strings.Contains(s, "_") {
		return 0, errNumber // Go's own 0b, 0o and 1_000
	}
	return strconv.ParseInt(s, 0, 64)
}

// digests is a list of None and CRC32C.
type digests struct{ oneWord }

func (digests) usage() string { return "None, CRC32C or both with a comma between" }

func (r digests) check(value string) (string, string, error) {
	var list []string
	for d := range strings.SplitSeq(value, ",") {
		if d != "None" && d != "CRC32C" {
			return "", "", fmt.Errorf("%.64q, want %s", value, r.usage())
		}
		if !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	return strings.Join(list, ","), "", nil
}

// fixed takes what rule takes and makes one value of it.
type fixed struct {
	rule
	value string
}

func (r fixed) check(value string) (string, string, error) {
	v, warning, err := r.rule.check(value)
	if err != nil {
		return "", "", err
	}
	if v != r.value || warning != "" {
		return r.value, fmt.Sprintf("%s is taken for %s, the only value supported", value, r.value), nil
	}
	return r.value, "", nil
}

// text is words with one blank between.
type text struct{}

func (text) words() bool { return true }

func (text) usage() string { return fmt.Sprintf("a name of 1 to %d bytes", maxText) }

func (r text) check(value string) (string, string, error) {
	v := strings.Join(strings.FieldsFunc(value, isBlank), " ")
	if v == "" || len(v) > maxText || hasControl(v) {
		return "", "", fmt.Errorf("%d bytes, want %s without control characters", len(v), r.usage())
	}
	return v, "", nil
}
