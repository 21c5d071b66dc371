package ietconf

import (
	"fmt"
	"strings"
)

// goodPassword is how many bytes a password should have at least: CHAP wants 96 bits
// (RFC 7143 section 9.2.1). The old configurations have shorter ones, which are taken.
const goodPassword = 12

// CheckAccount returns an error unless a user and a password are what
// ietd.conf and ietadm can hold: 1 to 255 bytes each, without blanks, commas
// and control characters. The error never has the password in it.
func CheckAccount(a Account) error {
	if err := checkAccountWord("user", a.User); err != nil {
		return err
	}
	return checkAccountWord("password", a.Password)
}

func checkAccountWord(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("no %s: want 1 to %d bytes", what, maxText)
	case len(s) > maxText:
		return fmt.Errorf("a %s of %d bytes, at most %d are allowed", what, len(s), maxText)
	case !isWord(s) || strings.Contains(s, ","):
		return fmt.Errorf("a %s with a blank, a comma or a control character, want one without", what)
	}
	return nil
}

func parseIncomingUser(p *parser, args []string) {
	account := Account{args[0], args[1]}
	if err := CheckAccount(account); err != nil {
		p.fail("%v", err)
		return
	}
	if p.users[account.User] {
		p.fail("user %.64q is there already: give each one name", account.User)
		return
	}
	p.users[account.User] = true
	if len(account.Password) < goodPassword {
		p.warn("the password has fewer than %d bytes: it can be guessed from one login that is overheard (RFC 7143 section 9.2.1)", goodPassword)
	}
	a := p.accounts()
	a.Incoming = append(a.Incoming, account)
}

func parseOutgoingUser(p *parser, args []string) {
	account := Account{args[0], args[1]}
	if err := CheckAccount(account); err != nil {
		p.fail("%v", err)
		return
	}
	a := p.accounts()
	if a.Outgoing != nil {
		p.warn("replaces an earlier one: there is one per target")
	}
	a.Outgoing = &account
}
