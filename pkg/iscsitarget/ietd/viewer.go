package ietd

import (
	"context"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietadm"
	"golang.org/x/sys/unix"
)

// Viewer has ietadm show what a server serves whose targets come and go by somebody
// else's will; it implements [ietadm.Handler], and changes nothing. Targets are numbered
// by their names, as long as none comes or goes.
type Viewer struct {
	Server *iscsitarget.Server
	// Refusal says why nothing is changed here, and where it is.
	Refusal string
}

// Admin shows what is served, or refuses.
func (v Viewer) Admin(_ context.Context, req ietadm.Request) (ietadm.Answer, error) {
	whole := req.TID == nil && req.SID == nil && req.CID == nil && req.LUN == nil && !req.User
	switch {
	case req.Op != ietadm.Show:
		return ietadm.Answer{}, ietadm.Errorf(unix.EPERM, "%s", v.Refusal)
	case whole && (req.Proc == "" || req.Proc == "volume" || req.Proc == "volumes"):
		list := v.volumes()
		return answer(req, volumeText(list), list)
	case whole && (req.Proc == "session" || req.Proc == "sessions"):
		list := v.sessions()
		return answer(req, sessionText(list), list)
	}
	return ietadm.Answer{}, ietadm.Errorf(unix.EPERM, "only --op show, --op show --proc volume and --op show --proc session are answered here")
}

func (v Viewer) volumes() []VolumeStatus {
	list := []VolumeStatus{}
	for i, t := range v.Server.Targets() {
		status := VolumeStatus{TID: uint32(i + 1), Name: t.Name(), LUNs: []LUNStatus{}} //nolint:gosec // a count
		for _, l := range t.LUNs() {
			mode := "wb"
			switch {
			case l.ReadOnly:
				mode = "ro"
			case !l.WriteCache:
				mode = "wt"
			}
			status.LUNs = append(status.LUNs, LUNStatus{
				LUN: l.LUN, IOType: "fileio", IOMode: mode, Blocks: l.Blocks, BlockSize: l.BlockSize,
			})
		}
		list = append(list, status)
	}
	return list
}

func (v Viewer) sessions() []TargetSessions {
	all := v.Server.Sessions()
	list := []TargetSessions{}
	for i, t := range v.Server.Targets() {
		list = append(list, targetSessions(uint32(i+1), t.Name(), all)) //nolint:gosec // a count
	}
	return list
}
