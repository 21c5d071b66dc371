package login

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// security answers the keys of the security stage (RFC 7143 section 12).
func (m *Machine) security(pairs []text.Pair) ([]text.Pair, error) {
	if method, ok := text.Get(pairs, "AuthMethod"); ok {
		return m.authMethod(method)
	}
	if list, ok := text.Get(pairs, "CHAP_A"); ok {
		return m.chapStart(list)
	}
	if _, ok := text.Get(pairs, "CHAP_N"); ok {
		return m.chapProof(pairs)
	}
	if _, ok := text.Get(pairs, "CHAP_R"); ok {
		return nil, fmt.Errorf("%w: CHAP_R without CHAP_N", errAuth)
	}
	return nil, nil
}

// authMethod settles on CHAP where this initiator must prove itself, on None
// where it need not.
func (m *Machine) authMethod(list string) ([]text.Pair, error) {
	want := "None"
	if len(m.creds) > 0 {
		want = "CHAP"
	}
	if m.stage != pdu.StageSecurity {
		return nil, refuse(pdu.LoginInvalidDuring, "AuthMethod outside the security stage")
	}
	if _, ok := text.Choose(list, []string{want}); !ok {
		return nil, fmt.Errorf("%w: %s is needed, AuthMethod %.64q was offered", errAuth, want, list)
	}
	return []text.Pair{{Key: "AuthMethod", Value: want}}, nil
}

func (m *Machine) chapStart(list string) (_ []text.Pair, err error) {
	if len(m.creds) == 0 || m.stage != pdu.StageSecurity || m.chap != nil {
		return nil, fmt.Errorf("%w: CHAP_A out of turn", errAuth)
	}
	if m.chap, err = newCHAPExchange(list); err != nil {
		return nil, err
	}
	return m.chap.offer(), nil
}

func (m *Machine) chapProof(pairs []text.Pair) ([]text.Pair, error) {
	if m.chap == nil || m.proven {
		return nil, fmt.Errorf("%w: CHAP_N out of turn", errAuth)
	}
	name, _ := text.Get(pairs, "CHAP_N")
	encoded, _ := text.Get(pairs, "CHAP_R")
	response, err := decodeBinary(encoded)
	if err != nil {
		return nil, err
	}
	proven, nonce, err := m.match(name, response)
	if err != nil {
		m.door.Proved(name, err)
		return nil, err
	}
	m.proven = true
	m.result.Proven, m.result.Nonce = proven, nonce
	m.door.Proved(m.creds[proven].User, nil)
	return m.mutual(pairs, m.creds[proven])
}

// match finds the credentials that name and response prove. Several may have
// the same user: one of an initiator's own, one for any.
func (m *Machine) match(name string, response []byte) (proven int, nonce string, err error) {
	err = fmt.Errorf("%w: %w %.64q", errAuth, ErrUnknownUser, name)
	for i, c := range m.creds {
		nonce, ok := c.nonceOf(name)
		if !ok {
			continue
		}
		if c.Secret != "" && m.chap.verify(response, c.Secret) {
			return i, nonce, nil
		}
		err = fmt.Errorf("%w: %w for user %.64q", errAuth, ErrWrongSecret, name)
	}
	return -1, "", err
}

// maxNonce bounds a stage nonce in characters.
const maxNonce = 64

// nonceOf says whether CHAP_N names these credentials, and with which nonce.
func (c Credentials) nonceOf(name string) (string, bool) {
	if !c.StageNonce {
		return "", name == c.User
	}
	nonce, ok := strings.CutPrefix(name, c.User+"+")
	if !ok || len(nonce) == 0 || len(nonce) > maxNonce {
		return "", false
	}
	for _, r := range nonce {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return "", false
		}
	}
	return nonce, true
}

// mutual answers the initiator's own challenge, if there is one.
func (m *Machine) mutual(pairs []text.Pair, creds Credentials) ([]text.Pair, error) {
	encoded, asked := text.Get(pairs, "CHAP_C")
	if !asked {
		return nil, nil
	}
	idText, _ := text.Get(pairs, "CHAP_I")
	id, err := strconv.ParseUint(idText, 0, 8)
	if err != nil {
		return nil, fmt.Errorf("%w: CHAP_I %.16q", errAuth, idText)
	}
	challenge, err := decodeBinary(encoded)
	if err != nil {
		return nil, err
	}
	return m.chap.answer(byte(id), challenge, creds)
}

// mayTransit says whether a request's T bit is granted. Nobody passes the
// security stage, or around it, without the proof that the door asked for.
func (m *Machine) mayTransit(req pdu.LoginRequest) (bool, error) {
	authenticated := len(m.creds) == 0 || m.proven
	if req.CSG == pdu.StageOperational && !authenticated {
		return false, fmt.Errorf("%w: operational stage without authentication", errAuth)
	}
	// A request may carry T before the exchange is over: the answer then
	// keeps the stage.
	return req.Transit && authenticated, nil
}
