package ietd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietadm"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
	"golang.org/x/sys/unix"
)

// accounts are those that the request is about: a target's, or those of discovery
// sessions. set makes others of them.
func (a adminCall) accounts() (have ietconf.Accounts, set func(context.Context, ietconf.Accounts) error, err error) {
	if a.req.TID == nil {
		return a.d.global.Discovery, func(_ context.Context, accounts ietconf.Accounts) error {
			a.d.global.Discovery = accounts
			a.d.server.SetDiscoveryCHAP(chapOf(accounts))
			return nil
		}, nil
	}
	t, err := a.target()
	if err != nil {
		return ietconf.Accounts{}, nil, err
	}
	return t.conf.Accounts, func(ctx context.Context, accounts ietconf.Accounts) error {
		if err := a.d.setAccounts(ctx, t, accounts); err != nil {
			return err
		}
		t.conf.Accounts = accounts
		return nil
	}, nil
}

// account is the one that --params names. incoming is false for OutgoingUser.
func (a adminCall) account() (account ietconf.Account, incoming bool, err error) {
	params, err := a.params()
	if err != nil {
		return account, false, err
	}
	for _, p := range params {
		switch strings.ToLower(p[0]) {
		case "incominguser":
			account.User, incoming = p[1], true
		case "outgoinguser":
			account.User = p[1]
		case "password":
			account.Password = p[1]
		default:
			return account, false, ietadm.Errorf(unix.EINVAL, "no parameter %.64q of a user; there are IncomingUser, OutgoingUser and Password", p[0])
		}
	}
	if account.User == "" {
		return account, false, ietadm.Errorf(unix.EINVAL, "no user is named: want --params IncomingUser=NAME or OutgoingUser=NAME")
	}
	return account, incoming, nil
}

func (a adminCall) newUser(ctx context.Context) (ietadm.Answer, error) {
	have, set, err := a.accounts()
	if err != nil {
		return ietadm.Answer{}, err
	}
	account, incoming, err := a.account()
	if err == nil && account.Password == "" {
		err = ietadm.Errorf(unix.EINVAL, "a new user wants a Password=")
	}
	if err == nil {
		err = ietconf.CheckAccount(account)
	}
	if err != nil {
		return ietadm.Answer{}, err
	}
	have.Incoming = slices.Clone(have.Incoming)
	switch {
	case !incoming && have.Outgoing != nil:
		return ietadm.Answer{}, ietadm.Errorf(unix.EEXIST, "there is an OutgoingUser already: delete %s first", have.Outgoing.User)
	case !incoming:
		have.Outgoing = &account
	case position(have.Incoming, account.User) >= 0:
		return ietadm.Answer{}, ietadm.Errorf(unix.EEXIST, "user %s is there already", account.User)
	default:
		have.Incoming = append(have.Incoming, account)
	}
	return ietadm.Answer{}, set(ctx, have)
}

// updateUser changes a password.
func (a adminCall) updateUser(ctx context.Context) (ietadm.Answer, error) {
	have, set, err := a.accounts()
	if err != nil {
		return ietadm.Answer{}, err
	}
	account, incoming, err := a.account()
	if err == nil {
		err = ietconf.CheckAccount(account)
	}
	if err != nil {
		return ietadm.Answer{}, err
	}
	have.Incoming = slices.Clone(have.Incoming)
	i := position(have.Incoming, account.User)
	switch {
	case incoming && i >= 0:
		have.Incoming[i] = account
	case !incoming && have.Outgoing != nil && have.Outgoing.User == account.User:
		have.Outgoing = &account
	default:
		return ietadm.Answer{}, noUser(account.User)
	}
	return ietadm.Answer{}, set(ctx, have)
}

func (a adminCall) deleteUser(ctx context.Context) (ietadm.Answer, error) {
	have, set, err := a.accounts()
	if err != nil {
		return ietadm.Answer{}, err
	}
	account, incoming, err := a.account()
	if err != nil {
		return ietadm.Answer{}, err
	}
	i := position(have.Incoming, account.User)
	switch {
	case incoming && i >= 0:
		have.Incoming = slices.Delete(slices.Clone(have.Incoming), i, i+1)
	case !incoming && have.Outgoing != nil && have.Outgoing.User == account.User:
		have.Outgoing = nil
	default:
		return ietadm.Answer{}, noUser(account.User)
	}
	return ietadm.Answer{}, set(ctx, have)
}

// UserStatus is an account, for programs.
type UserStatus struct {
	Direction string `json:"direction"` // IncomingUser or OutgoingUser
	User      string `json:"user"`
	// Password is there where one account was asked for.
	Password string `json:"password,omitempty"`
}

// showUser lists the accounts, or shows one with its password.
func (a adminCall) showUser(context.Context) (ietadm.Answer, error) {
	have, _, err := a.accounts()
	if err != nil {
		return ietadm.Answer{}, err
	}
	all := []UserStatus{}
	for _, in := range have.Incoming {
		all = append(all, UserStatus{"IncomingUser", in.User, in.Password})
	}
	if have.Outgoing != nil {
		all = append(all, UserStatus{"OutgoingUser", have.Outgoing.User, have.Outgoing.Password})
	}
	if a.req.Params != "" {
		account, incoming, err := a.account()
		if err != nil {
			return ietadm.Answer{}, err
		}
		all = slices.DeleteFunc(all, func(u UserStatus) bool {
			return u.User != account.User || (u.Direction == "IncomingUser") != incoming
		})
		if len(all) == 0 {
			return ietadm.Answer{}, noUser(account.User)
		}
		return a.shown(fmt.Sprintf("%s %s %s\n", all[0].Direction, all[0].User, all[0].Password), all)
	}
	var b strings.Builder
	for i := range all {
		all[i].Password = ""
		fmt.Fprintf(&b, "%s %s\n", all[i].Direction, all[i].User)
	}
	return a.shown(b.String(), all)
}

func noUser(name string) error {
	return ietadm.Errorf(unix.ENOENT, "there is no user %.64q there: see ietadm --op show --user", name)
}

func position(list []ietconf.Account, user string) int {
	return slices.IndexFunc(list, func(a ietconf.Account) bool { return a.User == user })
}
