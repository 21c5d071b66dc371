package ietd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
)

// VolumeStatus is a target with its units, for programs.
type VolumeStatus struct {
	TID  uint32      `json:"tid"`
	Name string      `json:"name"`
	LUNs []LUNStatus `json:"luns"`
}

// LUNStatus is a unit.
type LUNStatus struct {
	LUN       uint16 `json:"lun"`
	State     int    `json:"state"` // 0: it is served
	IOType    string `json:"iotype"`
	IOMode    string `json:"iomode"`
	Blocks    int64  `json:"blocks"`
	BlockSize int    `json:"blocksize"`
	Path      string `json:"path,omitempty"`
}

// TargetSessions are a target's sessions, for programs.
type TargetSessions struct {
	TID      uint32          `json:"tid"`
	Name     string          `json:"name"`
	Sessions []SessionStatus `json:"sessions"`
}

// SessionStatus is a session.
type SessionStatus struct {
	SID         uint64             `json:"sid"`
	Initiator   string             `json:"initiator"`
	Connections []ConnectionStatus `json:"connections"`
}

// ConnectionStatus is a connection.
type ConnectionStatus struct {
	CID          uint16 `json:"cid"`
	IP           string `json:"ip"`
	State        string `json:"state"`
	HeaderDigest string `json:"hd"`
	DataDigest   string `json:"dd"`
}

// Volumes are the targets with their units, by tid.
func (d *Daemon) Volumes() []VolumeStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.volumes()
}

// volumes is Volumes with mu held.
func (d *Daemon) volumes() []VolumeStatus {
	list := []VolumeStatus{}
	for _, t := range d.targets {
		v := VolumeStatus{TID: t.tid, Name: t.conf.Name, LUNs: []LUNStatus{}}
		for _, l := range t.conf.LUNs {
			v.LUNs = append(v.LUNs, lunStatus(l, t.media[l.Number]))
		}
		list = append(list, v)
	}
	return list
}

func lunStatus(l ietconf.LUN, m *medium) LUNStatus {
	size := m.device.BlockSize()
	return LUNStatus{
		LUN: l.Number, IOType: string(l.Type), IOMode: string(l.IOMode),
		Blocks: m.device.Size() / int64(size), BlockSize: size, Path: l.Path,
	}
}

// sessions are the targets with their sessions, by tid; mu is held.
func (d *Daemon) sessions() []TargetSessions {
	all := d.server.Sessions()
	list := []TargetSessions{}
	for _, t := range d.targets {
		list = append(list, targetSessions(t.tid, t.live.Name(), all))
	}
	return list
}

// targetSessions are those of all that are the target's.
func targetSessions(tid uint32, name string, all []iscsitarget.SessionStatus) TargetSessions {
	ts := TargetSessions{TID: tid, Name: name, Sessions: []SessionStatus{}}
	for _, s := range all {
		if s.Target == name && !s.Discovery {
			ts.Sessions = append(ts.Sessions, sessionStatus(s))
		}
	}
	return ts
}

func sessionStatus(s iscsitarget.SessionStatus) SessionStatus {
	status := SessionStatus{SID: sidNumber(sidOf(s)), Initiator: s.Initiator, Connections: []ConnectionStatus{}}
	for _, c := range s.Connections {
		status.Connections = append(status.Connections, ConnectionStatus{
			CID: c.CID, IP: shownAddress(c.Remote), State: "active",
			HeaderDigest: digestName(c.HeaderDigest), DataDigest: digestName(c.DataDigest),
		})
	}
	return status
}

func sidOf(s iscsitarget.SessionStatus) iscsitarget.SID {
	sid := iscsitarget.SID{TSIH: s.TSIH}
	_, _ = hex.Decode(sid.ISID[:], []byte(s.ISID)) // the target's own
	return sid
}

// shownAddress is an address without its port, IPv6 in brackets.
func shownAddress(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	switch {
	case err != nil:
		return remote
	case strings.Contains(host, ":"):
		return "[" + host + "]"
	}
	return host
}

func digestName(crc32c bool) string {
	if crc32c {
		return "crc32c"
	}
	return "none"
}

// volumeText is what /proc/net/iet/volume had.
func volumeText(list []VolumeStatus) string {
	var b strings.Builder
	for _, v := range list {
		fmt.Fprintf(&b, "tid:%d name:%s\n", v.TID, v.Name)
		for _, l := range v.LUNs {
			fmt.Fprintf(&b, "\tlun:%d state:%x iotype:%s iomode:%s blocks:%d blocksize:%d", l.LUN, l.State, l.IOType, l.IOMode, l.Blocks, l.BlockSize)
			if l.Path != "" {
				fmt.Fprintf(&b, " path:%s", l.Path)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// sessionText is what /proc/net/iet/session had.
func sessionText(list []TargetSessions) string {
	var b strings.Builder
	for _, t := range list {
		fmt.Fprintf(&b, "tid:%d name:%s\n", t.TID, t.Name)
		for _, s := range t.Sessions {
			fmt.Fprintf(&b, "\tsid:%d initiator:%s\n", s.SID, s.Initiator)
			for _, c := range s.Connections {
				b.WriteString("\t\t" + connectionText(c))
			}
		}
	}
	return b.String()
}

func connectionText(c ConnectionStatus) string {
	return fmt.Sprintf("cid:%d ip:%s state:%s hd:%s dd:%s\n", c.CID, c.IP, c.State, c.HeaderDigest, c.DataDigest)
}

// change has WriteStatus write.
func (d *Daemon) change() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// statusInterval is the least between two writings of the status.
const statusInterval = 200 * time.Millisecond

// WriteStatus keeps the files volume and session of a directory as /proc/net/iet had
// them, until ctx ends; then it removes them.
func (d *Daemon) WriteStatus(ctx context.Context, dir string) error {
	pause := time.NewTicker(statusInterval)
	defer pause.Stop()
	written := map[string]string{}
	for {
		d.mu.Lock()
		texts := map[string]string{"volume": volumeText(d.volumes()), "session": sessionText(d.sessions())}
		d.mu.Unlock()
		for name, text := range texts {
			if old, ok := written[name]; ok && old == text {
				continue
			}
			if err := replaceFile(filepath.Join(dir, name), text); err != nil {
				d.log.Error("the status files are not up to date", "error", err)
				continue
			}
			written[name] = text
		}
		select {
		case <-ctx.Done():
			return errors.Join(os.Remove(filepath.Join(dir, "volume")), os.Remove(filepath.Join(dir, "session")))
		case <-d.changed:
		}
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}

// replaceFile has readers see the old text or the new one. It says what is now: no power
// cut is to be survived.
func replaceFile(path, text string) error {
	next := path + ".new"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil { //nolint:gosec // scripts of anybody read it
		return err
	}
	return os.Rename(next, path)
}
