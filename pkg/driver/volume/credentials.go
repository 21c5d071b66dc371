package volume

import (
	"crypto/rand"
	"encoding/hex"
)

// Credentials are the CHAP names and secrets of one attachment (RFC 7143
// section 12.1.3). They are in clear in the record, which its owner alone may
// read, and nowhere else.
type Credentials struct {
	User         string `json:"user"`
	Secret       string `json:"secret"`
	MutualUser   string `json:"mutualUser"`
	MutualSecret string `json:"mutualSecret"`
}

// String keeps secrets out of logs.
func (Credentials) String() string { return "***stripped***" }

// GoString keeps secrets out of %#v.
func (Credentials) GoString() string { return "***stripped***" }

// MarshalLog keeps secrets out of structured logs.
func (c Credentials) MarshalLog() any { return c.String() }

// mintCredentials makes names and secrets that were never used before: 128
// random bits each, so that the mutual secret differs as RFC 7143 section
// 9.2.1 asks.
func mintCredentials() Credentials {
	return Credentials{
		User:         "node-" + randomHex(8),
		Secret:       randomHex(16),
		MutualUser:   "target-" + randomHex(8),
		MutualSecret: randomHex(16),
	}
}

// randomHex returns n random bytes as 2n hexadecimal digits.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails (Go 1.24)
	return hex.EncodeToString(b)
}
