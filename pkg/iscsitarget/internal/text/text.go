// Package text is iSCSI's key=value text: its codec (RFC 7143 section 6.1) and
// the negotiation of the operational parameters (sections 6.2 and 13).
package text

import (
	"bytes"
	"errors"
	"fmt"
)

const (
	// maxKey is the longest key name in bytes (RFC 7143 section 6.1).
	maxKey = 63
	// maxValue is the longest value taken: a list or a large binary value
	// may exceed the 255 bytes of a plain one.
	maxValue = 8192
	// maxPairs bounds what a peer makes us remember and answer.
	maxPairs = 128
)

// ErrSyntax is text that is not a sequence of key=value pairs.
var ErrSyntax = errors.New("malformed text")

// Pair is one key=value.
type Pair struct{ Key, Value string }

// Parse reads NUL-separated pairs. A key that comes twice is refused: RFC 7143
// section 6.2 allows each one to be negotiated once.
func Parse(b []byte) ([]Pair, error) {
	var pairs []Pair
	seen := map[string]bool{}
	for len(b) > 0 {
		var item []byte
		item, b, _ = bytes.Cut(b, []byte{0})
		if len(item) == 0 {
			continue // padding, or an empty pair that some initiators send
		}
		p, err := parsePair(item)
		if err != nil {
			return nil, err
		}
		if seen[p.Key] {
			return nil, fmt.Errorf("%w: key %s comes twice", ErrSyntax, p.Key)
		}
		if len(pairs) == maxPairs {
			return nil, fmt.Errorf("%w: more than %d keys", ErrSyntax, maxPairs)
		}
		seen[p.Key] = true
		pairs = append(pairs, p)
	}
	return pairs, nil
}

func parsePair(item []byte) (Pair, error) {
	key, value, ok := bytes.Cut(item, []byte{'='})
	switch {
	case !ok:
		return Pair{}, fmt.Errorf("%w: no '=' in %.64q", ErrSyntax, item)
	case len(key) == 0 || len(key) > maxKey || !validKey(key):
		return Pair{}, fmt.Errorf("%w: key %.64q", ErrSyntax, key)
	case len(value) > maxValue:
		return Pair{}, fmt.Errorf("%w: value of %s has %d bytes", ErrSyntax, key, len(value))
	}
	return Pair{string(key), string(value)}, nil
}

// validKey holds RFC 7143 section 6.1's standard-label: a capital letter, then
// letters, digits and a few signs. The RFC breaks its own rule in section 13.24,
// with a key that begins with a small letter.
func validKey(key []byte) bool {
	if string(key) == "iSCSIProtocolLevel" {
		return true
	}
	for i, c := range key {
		letter := c >= 'A' && c <= 'Z'
		if i > 0 {
			letter = letter || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || bytes.IndexByte([]byte(".-+@_#/"), c) >= 0
		}
		if !letter {
			return false
		}
	}
	return true
}

// Append adds a pair and its NUL to b.
func Append(b []byte, key, value string) []byte {
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, 0)
}

// Encode writes pairs one after another.
func Encode(pairs []Pair) []byte {
	var b []byte
	for _, p := range pairs {
		b = Append(b, p.Key, p.Value)
	}
	return b
}

// Get returns the value of a key.
func Get(pairs []Pair, key string) (string, bool) {
	for _, p := range pairs {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}
