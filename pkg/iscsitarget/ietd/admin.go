package ietd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietadm"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
	"golang.org/x/sys/unix"
)

// Admin does what ietadm asks for; it implements [ietadm.Handler].
func (d *Daemon) Admin(ctx context.Context, req ietadm.Request) (ietadm.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, d.opts.Patience)
	defer cancel()
	defer d.change()
	d.mu.Lock()
	defer d.mu.Unlock()
	a := adminCall{d, req}
	do := a.operation()
	if do == nil {
		return ietadm.Answer{}, ietadm.Errorf(unix.EINVAL, "no such operation: see ietadm(8)")
	}
	answer, err := do(ctx)
	if a.req.Op != ietadm.Show {
		d.register()
	}
	if err != nil {
		return ietadm.Answer{}, withErrno(err)
	}
	return answer, nil
}

// adminCall is one request; Daemon.mu is held.
type adminCall struct {
	d   *Daemon
	req ietadm.Request
}

// operation is what a request is, nil for nothing.
func (a adminCall) operation() func(context.Context) (ietadm.Answer, error) {
	r := a.req
	about := "everything"
	switch {
	case r.Proc != "":
		about = "proc"
	case r.User:
		about = "user"
	case r.LUN != nil:
		about = "lun"
	case r.CID != nil:
		about = "connection"
	case r.SID != nil:
		about = "session"
	case r.TID != nil:
		about = "target"
	}
	return map[string]func(context.Context) (ietadm.Answer, error){
		"new target": a.newTarget, "delete target": a.deleteTarget, "update target": a.updateTarget, "show target": a.showTarget,
		"new lun": a.newLUN, "delete lun": a.deleteLUN, "update lun": a.updateLUN, "show lun": a.showLUN,
		"show session": a.showSession, "show connection": a.showConnection, "delete session": a.deleteSession, "delete connection": a.deleteConnection,
		"new user": a.newUser, "delete user": a.deleteUser, "update user": a.updateUser, "show user": a.showUser,
		"show proc": a.showProc, "show everything": a.showEverything, "delete everything": a.deleteEverything,
		"save everything": a.save,
	}[string(r.Op)+" "+about]
}

// withErrno gives an error the exit status of its cause.
func withErrno(err error) error {
	var e *ietadm.Error
	if errors.As(err, &e) {
		return err
	}
	for _, known := range []struct {
		cause error
		errno unix.Errno
	}{
		{fs.ErrNotExist, unix.ENOENT}, {iscsitarget.ErrTargetNotFound, unix.ENOENT}, {iscsitarget.ErrLUNNotFound, unix.ENOENT},
		{iscsitarget.ErrTargetExists, unix.EEXIST}, {blockdev.ErrBusy, unix.EBUSY}, {context.DeadlineExceeded, unix.EBUSY},
		{blockdev.ErrInvalid, unix.EINVAL}, {iscsitarget.ErrInvalid, unix.EINVAL}, {fs.ErrPermission, unix.EACCES},
	} {
		if errors.Is(err, known.cause) {
			return &ietadm.Error{Errno: known.errno, Message: err.Error()}
		}
	}
	return err
}

// target is the one that the request names.
func (a adminCall) target() (*target, error) {
	if a.req.TID == nil {
		return nil, ietadm.Errorf(unix.EINVAL, "no target is named: give --tid")
	}
	a.d.say(messageFindID, *a.req.TID)
	for _, t := range a.d.targets {
		if t.tid == *a.req.TID {
			return t, nil
		}
	}
	a.d.say(messageTargetNotFound, *a.req.TID)
	return nil, ietadm.Errorf(unix.ENOENT, "there is no target %d: see ietadm --op show --proc volume", *a.req.TID)
}

// params are the request's, by name in the order in which they came.
func (a adminCall) params() ([][2]string, error) {
	var list [][2]string
	for word := range strings.SplitSeq(a.req.Params, ",") {
		if word == "" && a.req.Params == "" {
			break
		}
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" {
			return nil, ietadm.Errorf(unix.EINVAL, "--params %.64q, want Name=Value,...", word)
		}
		list = append(list, [2]string{name, value})
	}
	return list, nil
}

func (a adminCall) newTarget(context.Context) (ietadm.Answer, error) {
	params, err := a.params()
	if err != nil {
		return ietadm.Answer{}, err
	}
	if len(params) != 1 || !strings.EqualFold(params[0][0], "Name") || params[0][1] == "" {
		return ietadm.Answer{}, ietadm.Errorf(unix.EINVAL, "a new target wants --params Name=iqn...")
	}
	tid := *a.req.TID
	if slices.ContainsFunc(a.d.targets, func(t *target) bool { return tid != 0 && t.tid == tid }) {
		return ietadm.Answer{}, ietadm.Errorf(unix.EEXIST, "target %d is there already: --tid=0 takes the lowest that is free", tid)
	}
	t, err := a.d.addTarget(tid, ietconf.Target{Name: params[0][1], Parameters: map[string]string{}})
	if err != nil {
		return ietadm.Answer{}, err
	}
	return ietadm.Answer{}, a.d.setAccounts(context.Background(), t, ietconf.Accounts{})
}

func (a adminCall) deleteTarget(ctx context.Context) (ietadm.Answer, error) {
	t, err := a.target()
	if err != nil {
		return ietadm.Answer{}, err
	}
	if n := a.d.sessionsOf(t); n > 0 {
		return ietadm.Answer{}, ietadm.Errorf(unix.EBUSY, "target %d has %d sessions: log them out or delete their connections first", t.tid, n)
	}
	return ietadm.Answer{}, a.d.removeTarget(ctx, t)
}

// updateTarget changes parameters, or where logins are sent to.
func (a adminCall) updateTarget(context.Context) (ietadm.Answer, error) {
	t, err := a.target()
	if err != nil {
		return ietadm.Answer{}, err
	}
	if a.req.Redirect != nil {
		return ietadm.Answer{}, t.redirectTo(*a.req.Redirect)
	}
	params, err := a.params()
	if err == nil && len(params) == 0 {
		err = ietadm.Errorf(unix.EINVAL, "nothing to update: give --params or --redirect")
	}
	if err != nil {
		return ietadm.Answer{}, err
	}
	conf := t.conf
	conf.Parameters = maps.Clone(conf.Parameters)
	var warnings strings.Builder
	for _, p := range params {
		warning, err := conf.Set(p[0], p[1])
		if err != nil {
			return ietadm.Answer{}, ietadm.Errorf(unix.EINVAL, "%v", err)
		}
		if warning != "" {
			fmt.Fprintln(&warnings, warning)
		}
	}
	if err := t.live.Configure(a.d.settingsOf(&conf)); err != nil {
		return ietadm.Answer{}, err
	}
	t.conf = conf
	return ietadm.Answer{Message: warnings.String()}, nil
}

// redirectTo sends logins to ip[:port], or serves them again.
func (t *target) redirectTo(portal string) error {
	if portal != "" {
		if ip, err := netip.ParseAddr(strings.Trim(portal, "[]")); err == nil {
			portal = netip.AddrPortFrom(ip, 3260).String()
		}
		if _, err := netip.ParseAddrPort(portal); err != nil {
			return ietadm.Errorf(unix.EINVAL, "--redirect %.64q, want an IP address, with or without a port", portal)
		}
	}
	return t.live.Redirect(portal, false)
}

func (a adminCall) lunNumber() (uint16, error) {
	if *a.req.LUN > 0x3fff {
		return 0, ietadm.Errorf(unix.EINVAL, "--lun %d, want 0 to %d", *a.req.LUN, 0x3fff)
	}
	return uint16(*a.req.LUN), nil
}

func (a adminCall) newLUN(context.Context) (ietadm.Answer, error) {
	t, err := a.target()
	if err != nil {
		return ietadm.Answer{}, err
	}
	number, err := a.lunNumber()
	if err != nil {
		return ietadm.Answer{}, err
	}
	if t.media[number] != nil {
		a.d.say(messageLUNConfigured, t.tid, number)
		return ietadm.Answer{}, ietadm.Errorf(unix.EEXIST, "target %d has a LUN %d already", t.tid, number)
	}
	l, err := ietconf.ParseLUN(number, a.req.Params)
	if err != nil {
		return ietadm.Answer{}, ietadm.Errorf(unix.EINVAL, "lun %v", err)
	}
	if err := a.d.addLUN(t, l, &ietconf.Config{Targets: []ietconf.Target{{LUNs: []ietconf.LUN{l}}}}); err != nil {
		return ietadm.Answer{}, fmt.Errorf("lun %w", err)
	}
	return ietadm.Answer{}, nil
}

// lun is the target and the unit that the request names.
func (a adminCall) lun() (*target, ietconf.LUN, error) {
	t, err := a.target()
	if err != nil {
		return nil, ietconf.LUN{}, err
	}
	for _, l := range t.conf.LUNs {
		if uint64(l.Number) == *a.req.LUN {
			return t, l, nil
		}
	}
	return nil, ietconf.LUN{}, ietadm.Errorf(unix.ENOENT, "target %d has no LUN %d", t.tid, *a.req.LUN)
}

func (a adminCall) deleteLUN(ctx context.Context) (ietadm.Answer, error) {
	t, l, err := a.lun()
	if err != nil {
		return ietadm.Answer{}, err
	}
	return ietadm.Answer{}, a.d.removeLUN(ctx, t, l.Number)
}

// updateLUN makes a unit another one under its number: its options are those given,
// over those that it has.
func (a adminCall) updateLUN(ctx context.Context) (ietadm.Answer, error) {
	t, old, err := a.lun()
	if err != nil {
		return ietadm.Answer{}, err
	}
	l, err := ietconf.UpdateLUN(old, a.req.Params)
	if err != nil {
		return ietadm.Answer{}, ietadm.Errorf(unix.EINVAL, "lun %v", err)
	}
	if same(l, old) {
		return ietadm.Answer{}, nil
	}
	conf := &ietconf.Config{Targets: []ietconf.Target{{LUNs: []ietconf.LUN{l}}}}
	if err := a.d.removeLUN(ctx, t, old.Number); err != nil {
		return ietadm.Answer{}, err
	}
	err = a.d.addLUN(t, l, conf)
	if err != nil { // what there was goes on
		return ietadm.Answer{}, errors.Join(fmt.Errorf("lun %w", err), a.d.addLUN(t, old, conf))
	}
	return ietadm.Answer{}, nil
}

// deleteEverything ends all targets, as init scripts want before they kill the daemon.
func (a adminCall) deleteEverything(ctx context.Context) (ietadm.Answer, error) {
	var errs []error
	for _, t := range slices.Clone(a.d.targets) {
		errs = append(errs, a.d.removeTarget(ctx, t))
	}
	return ietadm.Answer{}, errors.Join(errs...)
}

// save has the configuration file say what is served now; with JSON the text is given
// back and nothing is saved.
func (a adminCall) save(context.Context) (ietadm.Answer, error) {
	conf := a.d.global
	for _, t := range a.d.targets {
		conf.Targets = append(conf.Targets, t.conf)
	}
	var b bytes.Buffer
	if err := ietconf.Format(&b, &conf); err != nil {
		return ietadm.Answer{}, err
	}
	switch {
	case a.req.JSON:
		return a.shown("", b.String())
	case a.d.opts.Save == nil:
		return ietadm.Answer{}, ietadm.Errorf(unix.EOPNOTSUPP, "this target has no configuration file")
	}
	return ietadm.Answer{}, a.d.opts.Save(b.String())
}

// shown is an answer that is printed, or given to programs.
func (a adminCall) shown(text string, data any) (ietadm.Answer, error) {
	return answer(a.req, text, data)
}

// answer is the one of two forms that the request asks for.
func answer(req ietadm.Request, text string, data any) (ietadm.Answer, error) {
	if !req.JSON {
		return ietadm.Answer{Text: text}, nil
	}
	b, err := json.Marshal(data)
	return ietadm.Answer{Data: b}, err
}

func number(n int) string { return strconv.Itoa(n) }
