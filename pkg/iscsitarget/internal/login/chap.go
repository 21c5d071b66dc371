package login

import (
	"crypto/md5" // #nosec G501 -- CHAP algorithm 5, mandatory in RFC 7143
	"crypto/rand"
	"crypto/sha1" // #nosec G505 -- CHAP algorithm 6
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// chapAlgorithm is one entry of the IANA registry of CHAP algorithms.
type chapAlgorithm struct {
	name      string // as in CHAP_A
	challenge int    // length of the challenges we send, in bytes
	new       func() hash.Hash
}

var chapAlgorithms = []chapAlgorithm{
	{"5", 16, md5.New},
	{"6", 20, sha1.New},
	{"7", 32, sha256.New},
	{"8", 32, func() hash.Hash { return sha3.New256() }},
}

// maxCHAPBinary bounds CHAP_C and CHAP_R in bytes (RFC 7143 section 12.1.3).
const maxCHAPBinary = 1024

// errAuth is a peer that did not prove who it is. The cause goes to the log,
// never to the peer.
var errAuth = errors.New("authentication failed")

// chooseCHAP picks the first algorithm of the initiator's CHAP_A list that this
// end has.
func chooseCHAP(list string) (chapAlgorithm, error) {
	for item := range strings.SplitSeq(list, ",") {
		for _, a := range chapAlgorithms {
			if item == a.name {
				return a, nil
			}
		}
	}
	return chapAlgorithm{}, fmt.Errorf("%w: no CHAP algorithm of %.64q is known", errAuth, list)
}

// respond computes CHAP_R (RFC 1994 section 4.1): the hash of identifier,
// secret and challenge.
func (a chapAlgorithm) respond(id byte, secret string, challenge []byte) []byte {
	h := a.new()
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

// chapExchange is the target's half of one CHAP exchange.
type chapExchange struct {
	algorithm chapAlgorithm
	id        byte
	challenge []byte
}

func newCHAPExchange(list string) (*chapExchange, error) {
	a, err := chooseCHAP(list)
	if err != nil {
		return nil, err
	}
	b := make([]byte, a.challenge+1)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	return &chapExchange{algorithm: a, id: b[0], challenge: b[1:]}, nil
}

// offer is the target's answer to CHAP_A.
func (x *chapExchange) offer() []text.Pair {
	return []text.Pair{
		{Key: "CHAP_A", Value: x.algorithm.name},
		{Key: "CHAP_I", Value: fmt.Sprint(x.id)},
		{Key: "CHAP_C", Value: encodeBinary(x.challenge)},
	}
}

// verify checks the initiator's CHAP_R against a secret, in constant time.
func (x *chapExchange) verify(response []byte, secret string) bool {
	return subtle.ConstantTimeCompare(response, x.algorithm.respond(x.id, secret, x.challenge)) == 1
}

// answer computes our CHAP_R to a mutual challenge. It refuses our own
// challenge played back, and a secret that the initiator proved itself with
// (RFC 7143 section 9.2.1).
func (x *chapExchange) answer(id byte, challenge []byte, c Credentials) ([]text.Pair, error) {
	switch {
	case c.MutualUser == "" || c.MutualSecret == "":
		return nil, fmt.Errorf("%w: mutual CHAP asked for, but %s has no mutual secret", errAuth, c.User)
	case subtle.ConstantTimeCompare(challenge, x.challenge) == 1:
		return nil, fmt.Errorf("%w: our own challenge was reflected", errAuth)
	case subtle.ConstantTimeCompare([]byte(c.MutualSecret), []byte(c.Secret)) == 1:
		return nil, fmt.Errorf("%w: %s has one secret for both directions", errAuth, c.User)
	}
	r := x.algorithm.respond(id, c.MutualSecret, challenge)
	return []text.Pair{{Key: "CHAP_N", Value: c.MutualUser}, {Key: "CHAP_R", Value: encodeBinary(r)}}, nil
}

func encodeBinary(b []byte) string { return "0x" + hex.EncodeToString(b) }

// decodeBinary reads a binary-value (RFC 7143 section 6.1), hexadecimal or
// base64, of 1 to maxCHAPBinary bytes. The length is checked before anything is
// decoded.
func decodeBinary(s string) ([]byte, error) {
	var b []byte
	var err error
	switch prefix := s[:min(2, len(s))]; prefix {
	case "0x", "0X":
		digits := s[2:]
		if len(digits) > 2*maxCHAPBinary {
			return nil, fmt.Errorf("%w: binary value of %d hexadecimal digits", errAuth, len(digits))
		}
		if len(digits)%2 == 1 {
			digits = "0" + digits
		}
		b, err = hex.DecodeString(digits)
	case "0b", "0B":
		if len(s) > base64.StdEncoding.EncodedLen(maxCHAPBinary)+2 {
			return nil, fmt.Errorf("%w: binary value of %d base64 characters", errAuth, len(s))
		}
		b, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(s[2:], "="))
	default:
		return nil, fmt.Errorf("%w: binary value begins with %q", errAuth, prefix)
	}
	if err != nil || len(b) == 0 || len(b) > maxCHAPBinary {
		return nil, fmt.Errorf("%w: binary value cannot be decoded", errAuth)
	}
	return b, nil
}
