package ietd

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
)

// The levels of ietd's messages: what it says at debug level 0 is always said.
const (
	LevelError  = slog.LevelError
	LevelDebug0 = slog.LevelInfo
	LevelDebug1 = slog.LevelDebug
	LevelDebug2 = slog.LevelDebug - 4
)

// message is one of the manual page's: its wording, and what its values are called.
type message struct {
	level  slog.Level
	format string
	values []string
}

// allMessages are those below.
var allMessages []message

func define(level slog.Level, format string, values ...string) message {
	m := message{level, format, values}
	allMessages = append(allMessages, m)
	return m
}

// The messages of ietd(8) that have a cause here. docs/ietd-compatibility.md has a row
// for each of the manual page.
var (
	messageDroppingKey       = define(LevelError, "Dropping key (%s=%s)", "key", "value")
	messageTargetNotFound    = define(LevelError, "target %d not found?", "tid")
	messageSessionNotFound   = define(LevelError, "session %#x not found?", "sid")
	messageRemoveNotFound    = define(LevelError, "session_remove: session %#x not found?", "sid")
	messageNeedToShutdown    = define(LevelError, "need to shutdown target %s", "target")
	messageUnknownUser       = define(LevelDebug0, "unknown user %s", "user")
	messageLoginFailed       = define(LevelDebug0, "login by %s failed", "user")
	messageLoginSucceeded    = define(LevelDebug0, "succesfull login by %s", "user")
	messageConnectionRequest = define(LevelDebug0, "connection request from %s", "remote")
	messageConnectionClosed  = define(LevelDebug0, "connection closed")
	messageLUNConfigured     = define(LevelDebug0, "lun %d:%d already configured", "tid", "lun")
	messageTakeFD            = define(LevelDebug1, "conn_take_fd: %d %d %d %x %d", "cid", "stat_sn", "exp_stat_sn", "sid", "fd")
	messageExpCmdSN          = define(LevelDebug1, "exp_cmd_sn: %d,%d", "exp_cmd_sn", "cmd_sn")
	messageLoginSecurity     = define(LevelDebug1, "Login request (security negotiation): %d", "state")
	messageLoginOperational  = define(LevelDebug1, "Login request (operational negotiation): %d", "state")
	messageTextRequest       = define(LevelDebug1, "Text request: %d", "state")
	messageCloseConnection   = define(LevelDebug1, "close conn %d session %x target %d", "cid", "sid", "tid")
	messageSessionFindName   = define(LevelDebug1, "session_find_name: %s,%#x", "initiator", "sid")
	messageSessionFindID     = define(LevelDebug1, "session_find_id: %#x", "sid")
	messageSessionCreate     = define(LevelDebug1, "session_create: %#x", "sid")
	messageSessionClose      = define(LevelDebug1, "session_close: %#x", "sid")
	messageSessionRemove     = define(LevelDebug1, "session_remove: %#x", "sid")
	messageActiveTarget      = define(LevelDebug1, "active target %d: %s", "tid", "target")
	messageRemovingTarget    = define(LevelDebug1, "removing target %d", "tid")
	messageCreatingTarget    = define(LevelDebug1, "creaing target %d: %s", "tid", "target")
	messageAttaching         = define(LevelDebug1, "attaching %d to %d:%d", "device", "tid", "lun")
	messageFindName          = define(LevelDebug1, "target_find_name: %s", "target")
	messageFindID            = define(LevelDebug1, "target_find_id: %d", "tid")
	messageTargetRemove      = define(LevelDebug1, "target_remove: %d,%s", "tid", "target")
	messageDumpLine          = define(LevelDebug2, "%s %.16s", "line", "buf")
	messageBHS               = define(LevelDebug2, "BHS: (%p)", "buf")
	messageAHS               = define(LevelDebug2, "AHS: (%p)", "buf")
	messageData              = define(LevelDebug2, "Data: (%p)", "buf")
)

// The states of a connection, by the numbers of the old daemon.
const (
	stateSecurity = 1
	stateLogin    = 6
	stateFull     = 8
)

// say logs a message. What initiators made up cannot end its line.
func (d *Daemon) say(m message, values ...any) {
	ctx := context.Background()
	if !d.log.Enabled(ctx, m.level) {
		return
	}
	attrs := make([]slog.Attr, len(values))
	for i, v := range values {
		switch x := v.(type) {
		case string:
			v = printable(x)
			values[i] = v
		case *byte:
			v = fmt.Sprintf("%p", x)
		}
		attrs[i] = slog.Any(m.values[i], v)
	}
	d.log.LogAttrs(ctx, m.level, fmt.Sprintf(m.format, values...), attrs...)
}

// printable has a dot for everything else.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '.'
		}
		return r
	}, s)
}

// follow says what happens on the target.
func (d *Daemon) follow(e iscsitarget.Event) {
	switch e.(type) {
	case iscsitarget.ConnectionTaken, iscsitarget.ConnectionLeft, iscsitarget.SessionEnded:
		d.change()
	}
	switch e := e.(type) {
	case iscsitarget.ConnectionRequested:
		d.say(messageConnectionRequest, hostOf(e.Remote))
	case iscsitarget.ConnectionClosed:
		d.say(messageConnectionClosed)
	case iscsitarget.KeyDropped:
		d.say(messageDroppingKey, e.Key, e.Value)
	case iscsitarget.UserUnknown:
		d.say(messageUnknownUser, e.User)
	case iscsitarget.UserRefused:
		d.say(messageLoginFailed, e.User)
	case iscsitarget.UserAccepted:
		d.say(messageLoginSucceeded, e.User)
	default:
		if d.log.Enabled(context.Background(), LevelDebug1) {
			d.followClosely(e)
		}
	}
}

// followClosely says what is said at debug levels 1 and 2.
func (d *Daemon) followClosely(e iscsitarget.Event) {
	switch e := e.(type) {
	case iscsitarget.LoginRequested:
		d.say(messageExpCmdSN, e.ExpCmdSN, e.CmdSN)
		if e.Security {
			d.say(messageLoginSecurity, stateSecurity)
		} else {
			d.say(messageLoginOperational, stateLogin)
		}
	case iscsitarget.TextRequested:
		d.say(messageExpCmdSN, e.ExpCmdSN, e.CmdSN)
		d.say(messageTextRequest, stateFull)
	case iscsitarget.TargetSought:
		d.say(messageFindName, e.Name)
	case iscsitarget.SessionSought:
		d.say(messageSessionFindName, e.Initiator, sidNumber(e.SID))
	case iscsitarget.SessionCreated:
		d.say(messageSessionCreate, sidNumber(e.SID))
	case iscsitarget.SessionEnded:
		d.say(messageSessionClose, sidNumber(e.SID))
		d.say(messageSessionRemove, sidNumber(e.SID))
	case iscsitarget.ConnectionTaken:
		d.say(messageTakeFD, e.CID, e.StatSN, e.ExpStatSN, sidNumber(e.SID), e.FD)
	case iscsitarget.ConnectionLeft:
		d.say(messageCloseConnection, e.CID, sidNumber(e.SID), d.tidOf(e.Target))
	case iscsitarget.Transferred:
		d.dump(e)
	}
}

// dump says what a PDU of a login or a text exchange holds.
func (d *Daemon) dump(t iscsitarget.Transferred) {
	for _, part := range []struct {
		m message
		b []byte
	}{{messageBHS, t.BHS}, {messageAHS, t.AHS}, {messageData, t.Data}} {
		if len(part.b) == 0 || !d.log.Enabled(context.Background(), LevelDebug2) {
			continue
		}
		d.say(part.m, &part.b[0])
		for i := 0; i < len(part.b); i += 16 {
			row := part.b[i:min(i+16, len(part.b))]
			d.say(messageDumpLine, hex.EncodeToString(row), visible(row))
		}
	}
}

// visible is a row of a dump as text.
func visible(row []byte) string {
	text := slices.Clone(row)
	for i, c := range text {
		if c < ' ' || c > '~' {
			text[i] = '.'
		}
	}
	return string(text)
}

// sidNumber is a session's identifier as the old daemon counted it: eight bytes, the
// ISID and the TSIH, the least first.
func sidNumber(s iscsitarget.SID) uint64 {
	n := uint64(s.TSIH) << 48
	for i, b := range s.ISID {
		n |= uint64(b) << (8 * i)
	}
	return n
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}
