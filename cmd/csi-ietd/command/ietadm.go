package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/csi-ietd/csi-ietd/pkg/driver"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietadm"
)

// The exit statuses of ietadm(8) that are no errno.
const statusUsage = 255

// ietadmOptions are the options of ietadm(8).
type ietadmOptions struct {
	op, params, redirect, proc, socket string
	tid, cid                           uint32
	sid, lun                           uint64
	user, json                         bool
}

func (o *ietadmOptions) addFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.op, "op", "o", "", "`operation`: new, delete, update, show or save")
	f.Uint32VarP(&o.tid, "tid", "t", 0, "`number` of a target; 0 for a new one takes the lowest that is free")
	f.Uint64VarP(&o.sid, "sid", "s", 0, "`number` of a session; 0 is what the target is configured to want")
	f.Uint32VarP(&o.cid, "cid", "c", 0, "`number` of a connection")
	f.Uint64VarP(&o.lun, "lun", "l", 0, "`number` of a logical unit")
	f.StringVarP(&o.params, "params", "p", "", "`Name=Value,...`: options of a Lun, parameters of a target, or a user and a Password")
	f.BoolVarP(&o.user, "user", "u", false, "it is about accounts: a target's, or without --tid those of discovery")
	f.StringVar(&o.redirect, "redirect", "", "`address[:port]` that a target's logins are sent to; empty ends that")
	f.StringVar(&o.proc, "proc", "", "show what /proc/net/iet had: `volume` or session")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringVar(&o.socket, "socket", ietadm.DefaultSocket, "`path` of the socket on which the target listens")
}

// request is the command line's: what was not given is nil.
func (o *ietadmOptions) request(f *pflag.FlagSet) (ietadm.Request, error) {
	req := ietadm.Request{Op: ietadm.Op(strings.ToLower(o.op)), User: o.user, Params: o.params, Proc: o.proc, JSON: o.json}
	switch req.Op {
	case ietadm.New, ietadm.Delete, ietadm.Update, ietadm.Show, ietadm.Save:
	case "":
		return req, errors.New("no operation: give --op new, delete, update, show or save")
	default:
		return req, fmt.Errorf("--op %.64q, want new, delete, update, show or save", o.op)
	}
	for name, set := range map[string]func(){
		"tid": func() { req.TID = &o.tid }, "sid": func() { req.SID = &o.sid }, "cid": func() { req.CID = &o.cid },
		"lun": func() { req.LUN = &o.lun }, "redirect": func() { req.Redirect = &o.redirect },
	} {
		if f.Changed(name) {
			set()
		}
	}
	return req, nil
}

func newIetadmCommand() *cobra.Command {
	var o ietadmOptions
	cmd := &cobra.Command{
		Use:     "ietadm",
		Short:   "Look at and change what a running target serves",
		Version: driver.Version(),
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := o.request(cmd.Flags())
			if err != nil {
				return exitError{statusUsage, err}
			}
			return runIetadm(cmd.Context(), o.socket, req, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exitError{statusUsage, err} })
	o.addFlags(cmd.Flags())
	cmd.Flags().BoolP("version", "v", false, "print the version")
	return cmd
}

// usage has wrong arguments end with ietadm's status for them.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return exitError{statusUsage, err}
		}
		return nil
	}
}

// runIetadm asks and prints what comes of it.
func runIetadm(ctx context.Context, socket string, req ietadm.Request, stdout, stderr io.Writer) error {
	answer, err := ietadm.Do(ctx, socket, req)
	if err != nil {
		return exitError{ietadm.StatusOf(err), err}
	}
	out := answer.Text
	if len(answer.Data) > 0 {
		out = string(answer.Data) + "\n"
	}
	if _, err := io.WriteString(stdout, out); err != nil {
		return exitError{ietadm.StatusOf(err), err}
	}
	if answer.Errno != 0 {
		return exitError{answer.ExitStatus(), errors.New(answer.Message)}
	}
	if answer.Message != "" {
		_, err = fmt.Fprintln(stderr, strings.TrimSpace(answer.Message))
	}
	return err
}
