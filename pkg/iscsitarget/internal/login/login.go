// Package login is the login phase (RFC 7143 section 6.3) as a state machine:
// a Login Request goes in, a Login Response comes out. It has no goroutine and
// touches no connection.
package login

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

const (
	// MaxData is the longest data segment of a login PDU in bytes: the
	// default MaxRecvDataSegmentLength (RFC 7143 section 13.12) holds until
	// login ends.
	MaxData = 8192
	// maxRequest bounds what a chain of requests with the C bit may add up
	// to, and maxReply what we answer to one: a reply cannot be amplified.
	maxRequest = 16 << 10
	maxReply   = 8192
	// maxExchanges bounds the PDUs of one login.
	maxExchanges = 32
	// maxName is the longest iSCSI name in bytes (RFC 7143 section 4.2.7.2).
	maxName = 223
)

// Credentials are what an initiator must prove and, for mutual CHAP, what we
// answer with.
type Credentials struct {
	User, Secret             string
	StageNonce               bool
	MutualUser, MutualSecret string
}

// Door decides who may log in. Its answers are asked for once a login, when
// the first request has named the initiator and the target.
type Door interface {
	// Open returns what the initiator must prove to log in to target (or
	// to open a discovery session, where target is empty): an empty list
	// admits it as it is. A refusal is a status other than LoginSuccess.
	Open(initiator, target string) ([]Credentials, pdu.LoginStatus)
	// Moved returns where a target is to be logged in to instead, in the
	// form of TargetAddress (RFC 7143 section 13.8), empty where it is here.
	// It is asked before Open, and before any proof.
	Moved(initiator, target string) (address string, permanent bool)
	// Wants returns what this end wants of a session with target (or of a
	// discovery session, where target is empty), and the target's alias, if it
	// has one. It is asked after Open.
	Wants(target string) (own text.Params, alias string)
	// Proved is told what an initiator's proof that it is a user came to: nil,
	// ErrUnknownUser or ErrWrongSecret.
	Proved(user string, err error)
}

// What Door.Proved is told.
var (
	ErrUnknownUser = errors.New("unknown user")
	ErrWrongSecret = errors.New("wrong secret")
)

// DroppedKey is a login that was refused because its answers have no room, with the
// first that had none.
type DroppedKey struct{ text.Pair }

func (d DroppedKey) Error() string {
	return fmt.Sprintf("the answers would have more than %d bytes from %s on", maxReply, d.Key)
}

// Result is a login that succeeded.
type Result struct {
	Initiator, Target string
	Discovery         bool
	ISID              pdu.ISID
	TSIH, CID         uint16
	// Proven is the index of the credentials that the initiator proved in
	// what the door returned, -1 for none; Nonce is the stage nonce that
	// came with them.
	Proven int
	Nonce  string
	Params text.Params
	// CmdSN is what the first command of the session will carry.
	CmdSN uint32
}

// Response is a Login Response to send.
type Response struct {
	PDU  pdu.LoginResponse
	Data []byte
}

// Machine is one login in progress.
type Machine struct {
	door  Door
	tpgt  uint16
	alias string

	started    bool
	exchanges  int
	first      pdu.LoginRequest
	stage      uint8
	pending    []byte // of a chain with the C bit
	result     Result
	negotiator *text.Negotiator
	creds      []Credentials
	chap       *chapExchange
	greeted    bool // TargetAlias and TargetPortalGroupTag were said
	proven     bool
}

// New starts a login in which this end names the target portal group tpgt.
func New(door Door, tpgt uint16) *Machine {
	return &Machine{door: door, tpgt: tpgt, result: Result{Proven: -1}}
}

// refusal is a login that ends here, with the status that the initiator gets.
type refusal struct {
	status pdu.LoginStatus
	cause  error
	// address is the TargetAddress of a redirection.
	address string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("login refused with status %04x: %v", uint16(r.status), r.cause)
}
func (r *refusal) Unwrap() error { return r.cause }

func refuse(status pdu.LoginStatus, format string, args ...any) error {
	return &refusal{status: status, cause: fmt.Errorf(format, args...)}
}

// redirect is a refusal that says where to go.
func redirect(target, address string, permanent bool) error {
	status := pdu.LoginMovedTemporarily
	if permanent {
		status = pdu.LoginMovedPermanently
	}
	return &refusal{status: status, cause: fmt.Errorf("%q has moved to %s", target, address), address: address}
}

// Initiator returns the name that the initiator gave, once it did.
func (m *Machine) Initiator() string { return m.result.Initiator }

// Target returns the name of the target that the initiator asked for.
func (m *Machine) Target() string { return m.result.Target }

// Step takes one Login Request and returns the answer. done says that the
// answer ends the login phase: the caller checks in the session (Result) and
// sends the answer with the session's TSIH. With an error the answer, a
// refusal, is to be sent and the connection closed.
func (m *Machine) Step(req pdu.LoginRequest, data []byte) (resp Response, done bool, err error) {
	resp.PDU = pdu.LoginResponse{CSG: req.CSG, ISID: req.ISID, TSIH: req.TSIH, ITT: req.ITT}
	reply, transit, err := m.step(req, data)
	if err != nil {
		resp.PDU.Status = statusOf(err)
		var r *refusal
		if errors.As(err, &r) && r.address != "" {
			resp.Data = text.Encode([]text.Pair{{Key: "TargetAddress", Value: r.address}})
		}
		return resp, false, err
	}
	resp.Data = reply
	if transit {
		resp.PDU.Transit, resp.PDU.NSG = true, req.NSG
		m.stage = req.NSG
	}
	return resp, transit && req.NSG == pdu.StageFullFeature, nil
}

// Refuse is the answer that ends a login from outside the machine.
func Refuse(req pdu.LoginRequest, status pdu.LoginStatus) Response {
	return Response{PDU: pdu.LoginResponse{ISID: req.ISID, TSIH: req.TSIH, ITT: req.ITT, Status: status}}
}

// Result is what the login settled; it is final once Step said done.
func (m *Machine) Result() Result { return m.result }

func statusOf(err error) pdu.LoginStatus {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r.status
	case errors.Is(err, errAuth):
		return pdu.LoginAuthFailure
	}
	return pdu.LoginInitiatorError
}

func (m *Machine) step(req pdu.LoginRequest, data []byte) (reply []byte, transit bool, err error) {
	if err := m.checkHeader(req); err != nil {
		return nil, false, err
	}
	if len(m.pending)+len(data) > maxRequest {
		return nil, false, refuse(pdu.LoginInitiatorError, "login text of more than %d bytes", maxRequest)
	}
	m.pending = append(m.pending, data...)
	if req.Continue {
		return nil, false, nil // an empty answer asks for the rest
	}
	pairs, err := text.Parse(m.pending)
	m.pending = m.pending[:0]
	if err != nil {
		return nil, false, err
	}
	if m.result.Initiator == "" {
		err = m.identify(pairs)
	} else {
		err = m.sameIdentity(pairs)
	}
	if err != nil {
		return nil, false, err
	}
	answer, err := m.answerAll(pairs)
	if err != nil {
		return nil, false, err
	}
	transit, err = m.mayTransit(req)
	if err != nil {
		return nil, false, err
	}
	if transit && req.NSG == pdu.StageFullFeature {
		m.result.Params = m.negotiator.Finish()
		m.result.CmdSN = req.CmdSN
	}
	for _, pair := range answer {
		reply = text.Append(reply, pair.Key, pair.Value)
		if len(reply) > maxReply {
			return nil, false, &refusal{status: pdu.LoginInitiatorError, cause: DroppedKey{pair}}
		}
	}
	return reply, transit, nil
}

// checkHeader holds the rules of RFC 7143 sections 6.3 and 11.12 for the fixed
// fields.
func (m *Machine) checkHeader(req pdu.LoginRequest) error {
	m.exchanges++
	switch {
	case m.exchanges > maxExchanges:
		return refuse(pdu.LoginInitiatorError, "login takes more than %d requests", maxExchanges)
	case req.VersionMin > 0:
		return refuse(pdu.LoginUnsupportedVersion, "version %d to %d, this target speaks 0", req.VersionMin, req.VersionMax)
	case req.Transit && req.Continue:
		return refuse(pdu.LoginInitiatorError, "T and C bit together")
	case req.CSG != pdu.StageSecurity && req.CSG != pdu.StageOperational:
		return refuse(pdu.LoginInitiatorError, "stage %d does not exist", req.CSG)
	case req.Transit && (req.NSG <= req.CSG || req.NSG == 2):
		return refuse(pdu.LoginInitiatorError, "no transit from stage %d to %d", req.CSG, req.NSG)
	}
	if !m.started {
		m.started, m.first, m.stage = true, req, req.CSG
		m.result.ISID, m.result.TSIH, m.result.CID = req.ISID, req.TSIH, req.CID
		return nil
	}
	switch f := m.first; {
	case req.CSG != m.stage:
		return refuse(pdu.LoginInvalidDuring, "stage %d where %d was agreed", req.CSG, m.stage)
	case req.ISID != f.ISID || req.TSIH != f.TSIH || req.CID != f.CID || req.ITT != f.ITT:
		return refuse(pdu.LoginInitiatorError, "ISID, TSIH, CID or task tag changed during login")
	}
	return nil
}

// identify reads the keys that the first request must hold and asks the door.
func (m *Machine) identify(pairs []text.Pair) error {
	name, ok := text.Get(pairs, "InitiatorName")
	if !ok || name == "" {
		return refuse(pdu.LoginMissingParameter, "no InitiatorName")
	}
	if !ValidName(name) {
		return refuse(pdu.LoginInitiatorError, "InitiatorName %.64q is no iSCSI name", name)
	}
	kind, ok := text.Get(pairs, "SessionType")
	if ok && kind != "Normal" && kind != "Discovery" {
		return refuse(pdu.LoginNoSessionType, "SessionType %.64q", kind)
	}
	target, named := text.Get(pairs, "TargetName")
	if kind == "Discovery" {
		m.result.Discovery, target = true, ""
	} else if !named || target == "" {
		return refuse(pdu.LoginMissingParameter, "no TargetName")
	}
	target = strings.ToLower(target) // iSCSI names compare after case folding (RFC 3722)
	if address, permanent := m.door.Moved(strings.ToLower(name), target); address != "" && !m.result.Discovery {
		return redirect(target, address, permanent)
	}
	creds, status := m.door.Open(strings.ToLower(name), target)
	if status != pdu.LoginSuccess {
		return refuse(status, "%s may not log in to %q", name, target)
	}
	m.result.Initiator, m.result.Target, m.creds = strings.ToLower(name), target, creds
	own, alias := m.door.Wants(target)
	m.alias = alias
	m.negotiator = text.NewNegotiator(own, m.result.Discovery, m.first.TSIH != 0)
	return nil
}

// sameIdentity holds later requests to what the first one said. RFC 7143 section
// 6.3 forbids to declare a key again; initiators that begin each stage with their
// name, as libiscsi does, are let pass, but not with another one.
func (m *Machine) sameIdentity(pairs []text.Pair) error {
	kind := "Normal"
	if m.result.Discovery {
		kind = "Discovery"
	}
	first := map[string]string{"InitiatorName": m.result.Initiator, "SessionType": strings.ToLower(kind)}
	if !m.result.Discovery {
		first["TargetName"] = m.result.Target
	}
	for _, p := range pairs {
		if want, ok := first[p.Key]; ok && strings.ToLower(p.Value) != want {
			return refuse(pdu.LoginInitiatorError, "%s became %.64q during login", p.Key, p.Value)
		}
	}
	return nil
}

// ValidName says whether s is an iSCSI name (RFC 7143 section 4.2.7), upper
// case allowed.
func ValidName(s string) bool {
	if len(s) > maxName || len(s) < 5 {
		return false
	}
	switch strings.ToLower(s[:4]) {
	case "iqn.", "eui.", "naa.":
	default:
		return false
	}
	for _, c := range s {
		if c <= ' ' || c == 0x7f || strings.ContainsRune(`,/;"'\<>`, c) {
			return false
		}
	}
	return true
}

// answerAll answers every key of a request, in its order, and adds what this
// end has to say in that stage.
func (m *Machine) answerAll(pairs []text.Pair) ([]text.Pair, error) {
	var out []text.Pair
	if !m.result.Discovery && !m.greeted {
		if m.alias != "" {
			out = append(out, text.Pair{Key: "TargetAlias", Value: m.alias})
		}
		out = append(out, text.Pair{Key: "TargetPortalGroupTag", Value: strconv.Itoa(int(m.tpgt))})
		m.greeted = true
	}
	for _, p := range pairs {
		switch {
		case p.Key == "InitiatorName" || p.Key == "InitiatorAlias" || p.Key == "TargetName" || p.Key == "SessionType":
		case p.Key == "AuthMethod" || strings.HasPrefix(p.Key, "CHAP_"):
			// Together below: a CHAP step is a set of keys.
		case m.stage == pdu.StageSecurity && isOperational(p.Key):
			return nil, refuse(pdu.LoginInvalidDuring, "%s in the security stage", p.Key)
		default:
			v, err := m.negotiator.Answer(p)
			if err != nil {
				return nil, err
			}
			if v != "" {
				out = append(out, text.Pair{Key: p.Key, Value: v})
			}
		}
	}
	auth, err := m.security(pairs)
	if err != nil {
		return nil, err
	}
	out = append(out, auth...)
	if m.stage == pdu.StageOperational {
		out = append(out, m.negotiator.Declare()...)
	}
	return out, nil
}

// isOperational: RFC 7143 section 6.3.2 allows the security stage security
// keys and declarations alone; unknown keys are answered NotUnderstood.
func isOperational(key string) bool {
	return key == "HeaderDigest" || key == "DataDigest" || key == "InitialR2T" || key == "ImmediateData"
}
