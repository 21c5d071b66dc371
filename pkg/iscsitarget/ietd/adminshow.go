package ietd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietadm"
	"golang.org/x/sys/unix"
)

// The parameters that ietadm shows of a target and of a session, in their order.
var (
	targetKeys  = []string{"Wthreads", "Type", "QueuedCommands", "NOPInterval", "NOPTimeout", "MaxSessions"}
	sessionKeys = []string{
		"InitialR2T", "ImmediateData", "MaxConnections", "MaxRecvDataSegmentLength", "MaxXmitDataSegmentLength",
		"MaxBurstLength", "FirstBurstLength", "DefaultTime2Wait", "DefaultTime2Retain", "MaxOutstandingR2T",
		"DataPDUInOrder", "DataSequenceInOrder", "ErrorRecoveryLevel", "HeaderDigest", "DataDigest",
		"OFMarker", "IFMarker", "OFMarkInt", "IFMarkInt",
	}
)

// keys are parameters as ietadm prints them.
func keys(names []string, of func(string) string) (text string, data map[string]string) {
	var b strings.Builder
	data = map[string]string{}
	for _, name := range names {
		data[name] = of(name)
		fmt.Fprintf(&b, "%s=%s\n", name, data[name])
	}
	return b.String(), data
}

func (a adminCall) showTarget(context.Context) (ietadm.Answer, error) {
	t, err := a.target()
	if err != nil {
		return ietadm.Answer{}, err
	}
	return a.shown(keys(targetKeys, func(name string) string {
		if name == "MaxSessions" {
			return number(t.conf.MaxSessions)
		}
		return values{&t.conf}.of(name)
	}))
}

// showSession shows what a session has settled; session 0 is what the target is
// configured to want.
func (a adminCall) showSession(context.Context) (ietadm.Answer, error) {
	t, err := a.target()
	if err != nil {
		return ietadm.Answer{}, err
	}
	if *a.req.SID == 0 {
		return a.shown(keys(sessionKeys, values{&t.conf}.of))
	}
	s, err := a.session(t)
	if err != nil {
		return ietadm.Answer{}, err
	}
	settled := settledKeys(s)
	return a.shown(keys(sessionKeys, func(name string) string {
		if v, ok := settled[name]; ok {
			return v
		}
		return values{&t.conf}.of(name) // what nobody can change
	}))
}

// showConnection shows a connection as the old status did.
func (a adminCall) showConnection(context.Context) (ietadm.Answer, error) {
	t, err := a.target()
	if err != nil {
		return ietadm.Answer{}, err
	}
	if a.req.SID == nil {
		return ietadm.Answer{}, ietadm.Errorf(unix.EINVAL, "no session is named: give --sid")
	}
	s, err := a.session(t)
	if err != nil {
		return ietadm.Answer{}, err
	}
	for _, c := range sessionStatus(s).Connections {
		if uint32(c.CID) == *a.req.CID {
			return a.shown(connectionText(c), c)
		}
	}
	return ietadm.Answer{}, noConnection(*a.req.SID)
}

func noConnection(sid uint64) error {
	return ietadm.Errorf(unix.ENOENT, "session %d has no such connection: see ietadm --op show --proc session", sid)
}

// settledKeys are a session's parameters, the digests those of its first connection.
func settledKeys(s iscsitarget.SessionStatus) map[string]string {
	p := s.Negotiated
	yes := map[bool]string{true: "Yes", false: "No"}
	digest := map[bool]string{true: "CRC32C", false: "None"}
	return map[string]string{
		"InitialR2T": yes[p.InitialR2T], "ImmediateData": yes[p.ImmediateData], "MaxConnections": number(p.MaxConnections),
		"MaxRecvDataSegmentLength": number(p.MaxRecvDataSegmentLength), "MaxXmitDataSegmentLength": number(p.MaxXmitDataSegmentLength),
		"MaxBurstLength": number(p.MaxBurstLength), "FirstBurstLength": number(p.FirstBurstLength),
		"DefaultTime2Wait": number(p.DefaultTime2Wait), "DefaultTime2Retain": number(p.DefaultTime2Retain),
		"MaxOutstandingR2T": number(p.MaxOutstandingR2T), "ErrorRecoveryLevel": number(p.ErrorRecoveryLevel),
		"HeaderDigest": digest[p.HeaderDigest], "DataDigest": digest[p.DataDigest],
	}
}

// session is the one that the request names.
func (a adminCall) session(t *target) (iscsitarget.SessionStatus, error) {
	a.d.say(messageSessionFindID, *a.req.SID)
	for _, s := range a.d.server.Sessions() {
		if s.Target == t.live.Name() && sidNumber(sidOf(s)) == *a.req.SID {
			return s, nil
		}
	}
	a.d.say(messageSessionNotFound, *a.req.SID)
	return iscsitarget.SessionStatus{}, ietadm.Errorf(unix.ENOENT, "target %d has no session %d: see ietadm --op show --proc session", t.tid, *a.req.SID)
}

// sessionsOf counts a target's sessions.
func (d *Daemon) sessionsOf(t *target) (n int) {
	for _, s := range d.server.Sessions() {
		if s.Target == t.live.Name() {
			n++
		}
	}
	return n
}

// deleteSession ends a session with its connections.
func (a adminCall) deleteSession(context.Context) (ietadm.Answer, error) {
	return ietadm.Answer{}, a.closeConnections(func(iscsitarget.ConnectionStatus) bool { return true })
}

// deleteConnection ends a connection, and with the last one its session.
func (a adminCall) deleteConnection(context.Context) (ietadm.Answer, error) {
	if a.req.SID == nil {
		return ietadm.Answer{}, ietadm.Errorf(unix.EINVAL, "no session is named: give --sid")
	}
	return ietadm.Answer{}, a.closeConnections(func(c iscsitarget.ConnectionStatus) bool { return uint32(c.CID) == *a.req.CID })
}

func (a adminCall) closeConnections(match func(iscsitarget.ConnectionStatus) bool) error {
	t, err := a.target()
	if err != nil {
		return err
	}
	s, err := a.session(t)
	if err != nil {
		a.d.say(messageRemoveNotFound, *a.req.SID)
		return err
	}
	if !slices.ContainsFunc(s.Connections, match) {
		return noConnection(*a.req.SID)
	}
	for _, c := range s.Connections {
		if match(c) {
			t.live.Disconnect(sidOf(s), c.CID)
		}
	}
	return nil
}

// showLUN shows a unit as the old status did.
func (a adminCall) showLUN(context.Context) (ietadm.Answer, error) {
	t, l, err := a.lun()
	if err != nil {
		return ietadm.Answer{}, err
	}
	status := []VolumeStatus{{TID: t.tid, Name: t.conf.Name, LUNs: []LUNStatus{lunStatus(l, t.media[l.Number])}}}
	return a.shown(volumeText(status), status)
}

func (a adminCall) showProc(context.Context) (ietadm.Answer, error) {
	switch a.req.Proc {
	case "volume", "volumes": // the old manual pages have it so
		list := a.d.volumes()
		return a.shown(volumeText(list), list)
	case "session", "sessions":
		list := a.d.sessions()
		return a.shown(sessionText(list), list)
	}
	return ietadm.Answer{}, ietadm.Errorf(unix.EINVAL, "--proc %.64q, want volume or session", a.req.Proc)
}

// showEverything is the targets with their units.
func (a adminCall) showEverything(context.Context) (ietadm.Answer, error) {
	list := a.d.volumes()
	return a.shown(volumeText(list), list)
}
