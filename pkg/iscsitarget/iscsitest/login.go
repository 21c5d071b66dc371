package iscsitest

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// Login is what a client logs in with.
type Login struct {
	Initiator string
	// Target is empty for a discovery session.
	Target string
	CHAP   *CHAP
	// Keys are offered in the operational stage instead of those of
	// [Usual].
	Keys []text.Pair
	// Direct skips the security stage.
	Direct bool
}

// CHAP are an initiator's credentials.
type CHAP struct {
	User, Secret string
	// Algorithm is CHAP_A's value; empty is "5", MD5.
	Algorithm string
	// Base64 sends binary values in base64, not in hexadecimal.
	Base64 bool
	// Mutual asks the target to prove that it knows MutualSecret.
	Mutual                   bool
	MutualUser, MutualSecret string
}

// Usual are operational keys like those of a Linux initiator.
func Usual() []text.Pair {
	return []text.Pair{
		{Key: "HeaderDigest", Value: "None"}, {Key: "DataDigest", Value: "None"},
		{Key: "DefaultTime2Wait", Value: "2"}, {Key: "DefaultTime2Retain", Value: "0"},
		{Key: "IFMarker", Value: "No"}, {Key: "OFMarker", Value: "No"},
		{Key: "ErrorRecoveryLevel", Value: "0"}, {Key: "InitialR2T", Value: "No"},
		{Key: "ImmediateData", Value: "Yes"}, {Key: "MaxBurstLength", Value: "16776192"},
		{Key: "FirstBurstLength", Value: "262144"}, {Key: "MaxOutstandingR2T", Value: "1"},
		{Key: "MaxConnections", Value: "1"}, {Key: "MaxRecvDataSegmentLength", Value: "262144"},
	}
}

// With is Usual with some keys replaced or added: "Key=value".
func With(keys ...string) []text.Pair {
	pairs := Usual()
	for _, k := range keys {
		key, value, _ := strings.Cut(k, "=")
		if i := index(pairs, key); i >= 0 {
			pairs[i].Value = value
			continue
		}
		pairs = append(pairs, text.Pair{Key: key, Value: value})
	}
	return pairs
}

func index(pairs []text.Pair, key string) int {
	for i, p := range pairs {
		if p.Key == key {
			return i
		}
	}
	return -1
}

// Join makes the client a party to a session that began elsewhere, without a
// login: p is what was negotiated, seen from the initiator.
func (c *Client) Join(p text.Params) {
	c.Params, c.full = p, true
	if !c.joins {
		c.ExpCmdSN, c.MaxCmdSN = c.CmdSN, c.CmdSN
	}
	c.reader.SetDigests(c.digests())
}

// Login logs in; a refusal fails the test.
func (c *Client) Login(l Login) {
	c.tb.Helper()
	if err := c.TryLogin(l); err != nil {
		c.tb.Fatalf("iscsitest: login of %s at %q: %v", l.Initiator, l.Target, err)
	}
}

// Refusal is a login that the target refused.
type Refusal struct{ Status pdu.LoginStatus }

func (r Refusal) Error() string { return fmt.Sprintf("login status %04x", uint16(r.Status)) }

// TryLogin logs in. The error is a [Refusal] where the target sent one.
func (c *Client) TryLogin(l Login) error {
	who := l.identity()
	if l.Direct {
		return c.operational(l, who)
	}
	if err := c.security(l, who); err != nil {
		return err
	}
	return c.operational(l, nil)
}

func (l Login) identity() []text.Pair {
	pairs := []text.Pair{{Key: "InitiatorName", Value: l.Initiator}, {Key: "InitiatorAlias", Value: "test"}}
	if l.Target == "" {
		return append(pairs, text.Pair{Key: "SessionType", Value: "Discovery"})
	}
	return append(pairs, text.Pair{Key: "SessionType", Value: "Normal"}, text.Pair{Key: "TargetName", Value: l.Target})
}

func (c *Client) security(l Login, who []text.Pair) error {
	if l.CHAP == nil {
		_, err := c.step(pdu.LoginRequest{Transit: true, CSG: pdu.StageSecurity, NSG: pdu.StageOperational},
			append(who, text.Pair{Key: "AuthMethod", Value: "None"}))
		return err
	}
	if _, err := c.step(pdu.LoginRequest{CSG: pdu.StageSecurity}, append(who, text.Pair{Key: "AuthMethod", Value: "CHAP,None"})); err != nil {
		return err
	}
	algorithm := l.CHAP.Algorithm
	if algorithm == "" {
		algorithm = "5"
	}
	offer, err := c.step(pdu.LoginRequest{CSG: pdu.StageSecurity}, []text.Pair{{Key: "CHAP_A", Value: algorithm}})
	if err != nil {
		return err
	}
	proof, challenge, err := l.CHAP.Prove(offer)
	if err != nil {
		return err
	}
	answer, err := c.step(pdu.LoginRequest{Transit: true, CSG: pdu.StageSecurity, NSG: pdu.StageOperational}, proof)
	if err != nil || !l.CHAP.Mutual {
		return err
	}
	return l.CHAP.check(offer, challenge, answer)
}

// ownID is the CHAP_I of a mutual challenge.
const ownID = 77

// Prove answers the target's CHAP_A, CHAP_I and CHAP_C, and adds a challenge of
// its own, which it returns, where the exchange is mutual.
func (x *CHAP) Prove(offer []text.Pair) (proof []text.Pair, challenge []byte, err error) {
	a, _ := text.Get(offer, "CHAP_A")
	idText, _ := text.Get(offer, "CHAP_I")
	c, _ := text.Get(offer, "CHAP_C")
	id, err := strconv.ParseUint(idText, 10, 8)
	if err != nil {
		return nil, nil, fmt.Errorf("CHAP_I %q", idText)
	}
	theirs, err := hex.DecodeString(strings.TrimPrefix(c, "0x"))
	if err != nil || len(theirs) < 16 {
		return nil, nil, fmt.Errorf("CHAP_C %q", c)
	}
	r, err := Digest(a, byte(id), x.Secret, theirs)
	if err != nil {
		return nil, nil, err
	}
	proof = []text.Pair{{Key: "CHAP_N", Value: x.User}, {Key: "CHAP_R", Value: x.encode(r)}}
	if x.Mutual {
		challenge = []byte("a challenge of the initiator")
		proof = append(proof, text.Pair{Key: "CHAP_I", Value: strconv.Itoa(ownID)},
			text.Pair{Key: "CHAP_C", Value: x.encode(challenge)})
	}
	return proof, challenge, nil
}

// check verifies what the target answered to our challenge.
func (x *CHAP) check(offer []text.Pair, challenge []byte, answer []text.Pair) error {
	a, _ := text.Get(offer, "CHAP_A")
	want, err := Digest(a, ownID, x.MutualSecret, challenge)
	if err != nil {
		return err
	}
	name, _ := text.Get(answer, "CHAP_N")
	r, _ := text.Get(answer, "CHAP_R")
	if name != x.MutualUser || r != "0x"+hex.EncodeToString(want) {
		return fmt.Errorf("the target's proof is wrong: %v", answer)
	}
	return nil
}

func (x *CHAP) encode(b []byte) string {
	if x.Base64 {
		return "0b" + base64.StdEncoding.EncodeToString(b)
	}
	return "0x" + hex.EncodeToString(b)
}

// Digest is CHAP_R (RFC 1994 section 4.1) under the algorithm of a CHAP_A.
func Digest(algorithm string, id byte, secret string, challenge []byte) ([]byte, error) {
	hashes := map[string]func() hash.Hash{
		"5": md5.New, "6": sha1.New, "7": sha256.New, "8": func() hash.Hash { return sha3.New256() },
	}
	h, ok := hashes[algorithm]
	if !ok {
		return nil, fmt.Errorf("CHAP_A %q", algorithm)
	}
	d := h()
	d.Write(append([]byte{id}, secret...))
	d.Write(challenge)
	return d.Sum(nil), nil
}

func (c *Client) operational(l Login, who []text.Pair) error {
	keys := l.Keys
	if keys == nil {
		keys = Usual()
	}
	answer, err := c.step(pdu.LoginRequest{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature}, append(who, keys...))
	if err != nil {
		return err
	}
	c.settle(keys, answer)
	return nil
}

// step sends a request and takes the answer, following the T bit if the target
// does not grant it at once.
func (c *Client) step(req pdu.LoginRequest, keys []text.Pair) ([]text.Pair, error) {
	var all []text.Pair
	for range 4 {
		resp, pairs, err := c.LoginStep(req, text.Encode(keys))
		if err != nil {
			return nil, err
		}
		all = append(all, pairs...)
		if resp.Transit == req.Transit {
			return all, nil
		}
		keys = nil
	}
	return nil, fmt.Errorf("the target does not go from stage %d to %d", req.CSG, req.NSG)
}

// LoginStep sends one Login Request and takes the Login Response. ISID, CID,
// TSIH, tags and numbers are filled in.
func (c *Client) LoginStep(req pdu.LoginRequest, data []byte) (pdu.LoginResponse, []text.Pair, error) {
	if req.TSIH == 0 {
		req.TSIH = c.TSIH
	}
	req.ISID, req.CID, req.ITT, req.CmdSN, req.ExpStatSN = c.ISID, c.CID, 1, c.CmdSN, c.ExpStatSN
	if err := c.TrySend(req.Header(), data); err != nil {
		return pdu.LoginResponse{}, nil, err
	}
	return c.LoginAnswer()
}

// LoginAnswer takes a Login Response.
func (c *Client) LoginAnswer() (pdu.LoginResponse, []text.Pair, error) {
	p, err := c.TryRecv(Timeout)
	if err != nil {
		return pdu.LoginResponse{}, nil, err
	}
	if p.BHS.Opcode() != pdu.OpLoginResponse {
		return pdu.LoginResponse{}, nil, fmt.Errorf("opcode %#02x for a Login Response", byte(p.BHS.Opcode()))
	}
	resp := pdu.ParseLoginResponse(&p.BHS)
	if resp.Status != pdu.LoginSuccess {
		return resp, nil, Refusal{resp.Status}
	}
	if got := p.BHS.StatSN(); got != c.ExpStatSN {
		return resp, nil, fmt.Errorf("Login Response has StatSN %d, want %d", got, c.ExpStatSN)
	}
	c.ExpStatSN++
	pairs, err := text.Parse(p.Data)
	if err != nil {
		return resp, nil, err
	}
	if resp.Transit && resp.NSG == pdu.StageFullFeature {
		c.full, c.TSIH = true, resp.TSIH
		c.ExpCmdSN, c.MaxCmdSN = p.BHS.Window()
	}
	return resp, pairs, nil
}

// settle works out the parameters from what was offered and answered.
func (c *Client) settle(offered, answer []text.Pair) {
	number := func(pairs []text.Pair, key string, def uint32) uint32 {
		v, _ := text.Get(pairs, key)
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return def
		}
		return uint32(n)
	}
	yes := func(key string, def bool) bool {
		v, ok := text.Get(answer, key)
		return ok && v == "Yes" || !ok && def
	}
	crc := func(key string) bool {
		v, _ := text.Get(answer, key)
		return v == "CRC32C"
	}
	c.Params = text.Params{
		HeaderDigest: crc("HeaderDigest"), DataDigest: crc("DataDigest"),
		InitialR2T: yes("InitialR2T", true), ImmediateData: yes("ImmediateData", true),
		MaxRecvDataSegmentLength: number(offered, "MaxRecvDataSegmentLength", 8192),
		MaxSendDataSegmentLength: number(answer, "MaxRecvDataSegmentLength", 8192),
		MaxBurstLength:           number(answer, "MaxBurstLength", 262144),
		FirstBurstLength:         number(answer, "FirstBurstLength", 65536),
		MaxOutstandingR2T:        number(answer, "MaxOutstandingR2T", 1),
	}
	c.Params.FirstBurstLength = min(c.Params.FirstBurstLength, c.Params.MaxBurstLength)
	c.reader.SetDigests(c.digests())
}
