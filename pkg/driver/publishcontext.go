package driver

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/crypto/nacl/box"
)

// ErrInvalidPublishContext is a publish_context that csi-ietd's controller has
// not made, or not for this node.
var ErrInvalidPublishContext = errors.New("invalid publish_context")

// The keys of publish_context. Kubernetes stores them in clear in the
// VolumeAttachment, so whatever is secret goes into pcCredentials, sealed.
const (
	pcPortals     = "portals"
	pcTargetName  = "targetName"
	pcLUN         = "lun"
	pcNAA         = "naa"
	pcSerial      = "serial"
	pcSizeBytes   = "sizeBytes"
	pcGeneration  = "generation"
	pcReadOnly    = "readOnly"
	pcCredentials = "credentials"
)

const (
	// maxPortals bounds the paths of one volume; dm-multipath gains nothing
	// beyond a few.
	maxPortals = 16
	// maxPublishValue bounds one value: 16 bracketed IPv6 portals, and the
	// sealed credentials, are well under it.
	maxPublishValue = 4096
	// maxLUN is the largest flat-space logical unit number (SAM-5 4.7.7.3).
	maxLUN = 0x3fff
	// maxCHAPUser leaves room for "+" and the 64 characters of a stage's
	// nonce within the 255 bytes of a text value (RFC 7143 section 6.1).
	maxCHAPUser = 190
	// minCHAPSecret is 96 bits (RFC 7143 section 9.2.1), maxCHAPSecret what
	// open-iscsi can hold.
	minCHAPSecret, maxCHAPSecret = 12, 255
)

// PublishContext is all that a node needs to attach a volume.
type PublishContext struct {
	// Portals are "ip:port", IPv6 in brackets, without a zone.
	Portals    []string
	TargetName string
	LUN        uint16
	// NAA is the logical unit's VPD 83h NAA designator, 16 lower-case
	// hexadecimal digits; Serial its VPD 80h serial, the volume's UUID.
	NAA, Serial string
	SizeBytes   int64
	// Generation numbers the attachments of a volume.
	Generation  uint64
	ReadOnly    bool
	Credentials Credentials
}

// Credentials are the CHAP names and secrets of one attachment (RFC 7143
// section 12.1.3). Mutual names and secrets are both set or both empty.
type Credentials struct {
	User         string `json:"user"`
	Secret       string `json:"secret"`
	MutualUser   string `json:"mutualUser,omitempty"`
	MutualSecret string `json:"mutualSecret,omitempty"`
}

// String keeps secrets out of logs.
func (Credentials) String() string { return "***stripped***" }

// GoString keeps secrets out of %#v.
func (Credentials) GoString() string { return "***stripped***" }

// sealedCredentials is the plain text inside the seal. It repeats what it
// belongs to, so that a seal moved to another context does not open there.
type sealedCredentials struct {
	Credentials
	TargetName string `json:"targetName"`
	Generation uint64 `json:"generation"`
}

// Seal makes the publish_context for node: the credentials sealed to the
// node's key (an anonymous NaCl box), the rest in clear. It fails with
// ErrInvalidPublishContext on what Open would refuse.
func (p PublishContext) Seal(node NodeID) (map[string]string, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(sealedCredentials{p.Credentials, p.TargetName, p.Generation})
	if err != nil {
		return nil, fmt.Errorf("encode credentials: %w", err)
	}
	sealed, err := box.SealAnonymous(nil, plain, &node.PublicKey, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("seal credentials: %w", err)
	}
	return map[string]string{
		pcPortals:     strings.Join(p.Portals, ","),
		pcTargetName:  p.TargetName,
		pcLUN:         strconv.FormatUint(uint64(p.LUN), 10),
		pcNAA:         p.NAA,
		pcSerial:      p.Serial,
		pcSizeBytes:   strconv.FormatInt(p.SizeBytes, 10),
		pcGeneration:  strconv.FormatUint(p.Generation, 10),
		pcReadOnly:    strconv.FormatBool(p.ReadOnly),
		pcCredentials: base64.StdEncoding.EncodeToString(sealed),
	}, nil
}

// OpenPublishContext reads what Seal made for the node of that identity. Every
// error is ErrInvalidPublishContext; none repeats a value, which may be secret.
func OpenPublishContext(m map[string]string, id NodeIdentity) (PublishContext, error) {
	r := contextReader{m: m}
	p := PublishContext{
		Portals:    r.portals(pcPortals),
		TargetName: r.str(pcTargetName),
		LUN:        uint16(r.number(pcLUN, maxLUN)),
		NAA:        r.str(pcNAA),
		Serial:     r.str(pcSerial),
		SizeBytes:  int64(r.number(pcSizeBytes, 1<<62)),
		Generation: r.number(pcGeneration, 1<<64-1),
		ReadOnly:   r.boolean(pcReadOnly),
	}
	sealed := r.str(pcCredentials)
	if r.err != nil {
		return PublishContext{}, r.err
	}
	var err error
	if p.Credentials, err = openCredentials(sealed, p, id); err != nil {
		return PublishContext{}, err
	}
	if err := p.validate(); err != nil {
		return PublishContext{}, err
	}
	return p, nil
}

func openCredentials(sealed string, p PublishContext, id NodeIdentity) (Credentials, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return Credentials{}, badContext(pcCredentials, "is not base64")
	}
	plain, ok := box.OpenAnonymous(nil, raw, &id.PublicKey, &id.PrivateKey)
	if !ok {
		return Credentials{}, badContext(pcCredentials,
			"are not sealed to this node's key; detach the volume and attach it again")
	}
	var c sealedCredentials
	if err := json.Unmarshal(plain, &c); err != nil {
		return Credentials{}, badContext(pcCredentials, "do not parse")
	}
	if c.TargetName != p.TargetName || c.Generation != p.Generation {
		return Credentials{}, badContext(pcCredentials, "belong to another attachment")
	}
	return c.Credentials, nil
}

func badContext(key, what string) error {
	return fmt.Errorf("%w: %s %s", ErrInvalidPublishContext, key, what)
}

// validate holds for every context that is sealed and every one that is
// opened. The alphabets matter: the values become lines of a record file.
func (p PublishContext) validate() error {
	volume, isOurs := strings.CutPrefix(p.TargetName, iqnPrefix)
	switch {
	case len(p.Portals) == 0 || len(p.Portals) > maxPortals:
		return badContext(pcPortals, fmt.Sprintf("must be 1 to %d", maxPortals))
	case !isOurs || !isCanonicalUUID(volume):
		return badContext(pcTargetName, "must be "+iqnPrefix+"<volume uuid>")
	case p.Serial != volume:
		return badContext(pcSerial, "is not the volume's uuid")
	case p.LUN > maxLUN:
		return badContext(pcLUN, "is out of range")
	case len(p.NAA) != 16 || !isLowerHex(p.NAA):
		return badContext(pcNAA, "must be 16 lower-case hexadecimal digits")
	case p.SizeBytes <= 0 || p.SizeBytes%512 != 0:
		return badContext(pcSizeBytes, "must be a positive multiple of 512")
	}
	for _, portal := range p.Portals {
		if n, err := normalisePortal(portal); err != nil || n != portal {
			return badContext(pcPortals, "must be ip:port in canonical form")
		}
	}
	return p.Credentials.validate()
}

func (c Credentials) validate() error {
	if !isCHAPUser(c.User) || !isCHAPSecret(c.Secret) {
		return badContext(pcCredentials, "hold no usable CHAP name and secret")
	}
	if c.MutualUser == "" && c.MutualSecret == "" {
		return nil
	}
	if !isCHAPUser(c.MutualUser) || !isCHAPSecret(c.MutualSecret) {
		return badContext(pcCredentials, "hold no usable mutual CHAP name and secret")
	}
	// RFC 7143 section 9.2.1: the same secret both ways invites reflection.
	if c.Secret == c.MutualSecret {
		return badContext(pcCredentials, "use one secret in both directions")
	}
	return nil
}

func isCHAPUser(s string) bool {
	return s != "" && len(s) <= maxCHAPUser && onlyOf(s, ".:-_")
}

func isCHAPSecret(s string) bool {
	return len(s) >= minCHAPSecret && len(s) <= maxCHAPSecret && onlyOf(s, ".:-_+/=")
}

// onlyOf reports whether s has only ASCII letters, digits and the characters
// of extra.
func onlyOf(s, extra string) bool {
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}

func isCanonicalUUID(s string) bool {
	u, err := uuid.Parse(s)
	return err == nil && u.String() == s
}

// normalisePortal returns the one spelling of an "ip:port": IPv4 unmapped,
// IPv6 compressed and in brackets. Host names, zones, and addresses that name
// no host are refused: open-iscsi would match its records by spelling, and a
// name resolves differently on every machine.
func normalisePortal(s string) (string, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return "", badContext(pcPortals, "must be ip:port")
	}
	a := ap.Addr().Unmap()
	if a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || ap.Port() == 0 {
		return "", badContext(pcPortals, "must be an address and port of one host")
	}
	return netip.AddrPortFrom(a, ap.Port()).String(), nil
}

// contextReader reads the values of a publish_context; the first error sticks.
type contextReader struct {
	m   map[string]string
	err error
}

func (r *contextReader) fail(key, what string) {
	if r.err == nil {
		r.err = badContext(key, what)
	}
}

func (r *contextReader) str(key string) string {
	v, ok := r.m[key]
	switch {
	case !ok || v == "":
		r.fail(key, "is missing")
	case len(v) > maxPublishValue:
		r.fail(key, "is too long")
	default:
		return v
	}
	return ""
}

func (r *contextReader) number(key string, limit uint64) uint64 {
	v := r.str(key)
	n, err := strconv.ParseUint(v, 10, 64)
	// The way back refuses signs, leading zeros and underscores.
	if err != nil || n > limit || strconv.FormatUint(n, 10) != v {
		r.fail(key, "is not a number in range")
		return 0
	}
	return n
}

func (r *contextReader) boolean(key string) bool {
	v := r.str(key)
	if v != "true" && v != "false" {
		r.fail(key, "is neither true nor false")
	}
	return v == "true"
}

func (r *contextReader) portals(key string) []string {
	v := r.str(key)
	if strings.Count(v, ",") >= maxPortals {
		r.fail(key, "has too many entries")
		return nil
	}
	var out []string
	for s := range strings.SplitSeq(v, ",") {
		n, err := normalisePortal(s)
		if err != nil {
			r.fail(key, "must be ip:port")
			return nil
		}
		// Two logins at one portal would be two sessions.
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
