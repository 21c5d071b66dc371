package ietd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietadm"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// want compares what ietadm prints.
func (r *rig) want(req ietadm.Request, want string) {
	r.Helper()
	if diff := cmp.Diff(want, r.admin(req)); diff != "" {
		r.Errorf("%+v (-want +got):\n%s", req, diff)
	}
}

// fails wants that exit status, and words of the message.
func (r *rig) fails(req ietadm.Request, errno unix.Errno, words string) {
	r.Helper()
	_, err := r.Admin(context.Background(), req)
	if !errors.Is(err, errno) || !strings.Contains(err.Error(), words) {
		r.Errorf("%+v: %v, want %v with %q", req, err, errno, words)
	}
}

// A target's life by ietadm alone, under I/O.
func TestAdmin(t *testing.T) {
	r := newRig(t, "")
	tid := ptr[uint32](1)
	r.admin(ietadm.Request{Op: ietadm.New, TID: ptr[uint32](0), Params: "Name=" + disk})
	r.admin(ietadm.Request{Op: ietadm.New, TID: tid, LUN: ptr[uint64](0), Params: "Path=" + r.dir + "/a.img,Type=fileio,IOMode=wb"})
	r.admin(ietadm.Request{Op: ietadm.New, TID: tid, LUN: ptr[uint64](5), Params: "Type=nullio,Blocks=2048"})
	r.want(ietadm.Request{Op: ietadm.Show, Proc: "volume"}, "tid:1 name:"+disk+"\n"+
		"\tlun:0 state:0 iotype:fileio iomode:wb blocks:2048 blocksize:512 path:@/a.img\n"+
		"\tlun:5 state:0 iotype:nullio iomode:wt blocks:2048 blocksize:512\n")
	c := r.login(1, disk)
	c.Alive()

	sid := sidNumber(sidOf(r.server.Sessions()[0]))
	r.want(ietadm.Request{Op: ietadm.Show, Proc: "session"}, fmt.Sprintf("tid:1 name:%s\n\tsid:%d initiator:%s\n\t\tcid:0 ip:127.0.0.1 state:active hd:none dd:none\n", disk, sid, node))
	r.want(ietadm.Request{Op: ietadm.Show, TID: tid, SID: &sid, CID: ptr[uint32](0)}, "cid:0 ip:127.0.0.1 state:active hd:none dd:none\n")
	r.fails(ietadm.Request{Op: ietadm.Show, TID: tid, SID: &sid, CID: ptr[uint32](7)}, unix.ENOENT, "no such connection")
	r.want(ietadm.Request{Op: ietadm.Show, TID: tid}, "Wthreads=8\nType=0\nQueuedCommands=32\nNOPInterval=0\nNOPTimeout=0\nMaxSessions=0\n")
	if got := r.admin(ietadm.Request{Op: ietadm.Show, TID: tid, SID: ptr[uint64](0)}); !strings.HasPrefix(got, "InitialR2T=Yes\nImmediateData=No\nMaxConnections=1\n") {
		t.Errorf("what is configured:\n%s", got)
	}
	if got := r.admin(ietadm.Request{Op: ietadm.Show, TID: tid, SID: &sid}); !strings.Contains(got, "\nMaxRecvDataSegmentLength=8192\n") || !strings.Contains(got, "\nDataPDUInOrder=Yes\n") {
		t.Errorf("what is settled:\n%s", got)
	}

	r.admin(ietadm.Request{Op: ietadm.Update, TID: tid, Params: "MaxSessions=1,MaxBurstLength=131072"})
	r.refused(pdu.LoginTooManyConnections, iscsitest.Login{Initiator: node + "2", Target: disk})
	r.admin(ietadm.Request{Op: ietadm.Update, TID: tid, LUN: ptr[uint64](5), Params: "IOMode=ro"})
	c.Ready()
	r.admin(ietadm.Request{Op: ietadm.Delete, TID: tid, LUN: ptr[uint64](5)})
	c.Ready()
	r.fails(ietadm.Request{Op: ietadm.Delete, TID: tid}, unix.EBUSY, "1 sessions")

	r.admin(ietadm.Request{Op: ietadm.Update, TID: tid, Redirect: ptr("192.0.2.1")})
	r.refused(pdu.LoginMovedTemporarily, iscsitest.Login{Initiator: node + "2", Target: disk})
	r.admin(ietadm.Request{Op: ietadm.Update, TID: tid, Redirect: ptr("")})
	r.refused(pdu.LoginTooManyConnections, iscsitest.Login{Initiator: node + "2", Target: disk})

	r.admin(ietadm.Request{Op: ietadm.Delete, TID: tid, SID: &sid, CID: ptr[uint32](0)})
	c.ExpectClosed()
	r.admin(ietadm.Request{Op: ietadm.Save})
	r.apply(strings.ReplaceAll(r.saved, r.dir, "@")) // what was saved is what is served
	r.want(ietadm.Request{Op: ietadm.Show}, "tid:1 name:"+disk+"\n\tlun:0 state:0 iotype:fileio iomode:wb blocks:2048 blocksize:512 path:@/a.img\n")
	if got := r.admin(ietadm.Request{Op: ietadm.Show, TID: tid, SID: ptr[uint64](0)}); !strings.Contains(got, "MaxBurstLength=131072\n") {
		t.Errorf("what is configured, saved and read again:\n%s", got)
	}
	r.admin(ietadm.Request{Op: ietadm.Delete})
	r.want(ietadm.Request{Op: ietadm.Show}, "")
}

func TestAdminUsers(t *testing.T) {
	r := newRig(t, "Target "+disk+"\n\tLun 0 Path=@/a.img\n")
	tid := ptr[uint32](1)
	r.admin(ietadm.Request{Op: ietadm.New, TID: tid, User: true, Params: "IncomingUser=joe,Password=secret-of-joe"})
	r.admin(ietadm.Request{Op: ietadm.New, TID: tid, User: true, Params: "OutgoingUser=disk,Password=secret-of-disk"})
	r.admin(ietadm.Request{Op: ietadm.New, User: true, Params: "IncomingUser=seeker,Password=secret-of-seeker"})
	r.want(ietadm.Request{Op: ietadm.Show, TID: tid, User: true}, "IncomingUser joe\nOutgoingUser disk\n")
	r.want(ietadm.Request{Op: ietadm.Show, User: true}, "IncomingUser seeker\n")
	r.want(ietadm.Request{Op: ietadm.Show, TID: tid, User: true, Params: "IncomingUser=joe"}, "IncomingUser joe secret-of-joe\n")
	r.want(ietadm.Request{Op: ietadm.Show, TID: tid, User: true, JSON: true}, `[{"direction":"IncomingUser","user":"joe"},{"direction":"OutgoingUser","user":"disk"}]`)

	r.refused(pdu.LoginAuthFailure, iscsitest.Login{Initiator: node, Target: disk})
	r.refused(pdu.LoginAuthFailure, iscsitest.Login{Initiator: node}) // discovery
	login := iscsitest.Login{Initiator: node, Target: disk, CHAP: &iscsitest.CHAP{User: "joe", Secret: "secret-of-joe"}}
	c := iscsitest.Dial(t, r.addr)
	c.Login(login)
	r.admin(ietadm.Request{Op: ietadm.Update, TID: tid, User: true, Params: "IncomingUser=joe,Password=another-one"})
	r.refused(pdu.LoginAuthFailure, login)
	c.Alive()
	r.admin(ietadm.Request{Op: ietadm.New, TID: tid, User: true, Params: "IncomingUser=jim,Password=secret-of-jim"})
	r.admin(ietadm.Request{Op: ietadm.Delete, TID: tid, User: true, Params: "IncomingUser=joe"})
	c.ExpectClosed()
	r.admin(ietadm.Request{Op: ietadm.Delete, User: true, Params: "IncomingUser=seeker"})
	d := iscsitest.Dial(t, r.addr)
	d.Login(iscsitest.Login{Initiator: node})
	if strings.Contains(r.log.String(), "secret-of") {
		t.Error("the log has a secret")
	}
}

// What is wrong says so, with the status of its cause, and changes nothing.
func TestAdminRefuses(t *testing.T) {
	r := newRig(t, twoTargets)
	c := r.login(1, disk)
	one, none := ptr[uint32](1), ptr[uint32](9)
	lun0, lun9 := ptr[uint64](0), ptr[uint64](9)
	before := r.admin(ietadm.Request{Op: ietadm.Show})
	if err := os.Symlink("a.img", filepath.Join(r.dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		req   ietadm.Request
		errno unix.Errno
		words string
	}{
		{ietadm.Request{Op: "explode"}, unix.EINVAL, "no such operation"},
		{ietadm.Request{Op: ietadm.New}, unix.EINVAL, "no such operation"},
		{ietadm.Request{Op: ietadm.Show, TID: none}, unix.ENOENT, "no target 9"},
		{ietadm.Request{Op: ietadm.Delete, TID: none}, unix.ENOENT, "no target 9"},
		{ietadm.Request{Op: ietadm.New, TID: one, Params: "Name=iqn.new"}, unix.EEXIST, "target 1"},
		{ietadm.Request{Op: ietadm.New, TID: none, Params: "Name=" + strings.ToUpper(disk)}, unix.EEXIST, disk},
		{ietadm.Request{Op: ietadm.New, TID: none, Params: "Name=nonsense"}, unix.EINVAL, "iqn."},
		{ietadm.Request{Op: ietadm.New, TID: none, Params: "Nome=iqn.x"}, unix.EINVAL, "Name="},
		{ietadm.Request{Op: ietadm.New, TID: none}, unix.EINVAL, "Name="},
		{ietadm.Request{Op: ietadm.Update, TID: one}, unix.EINVAL, "nothing to update"},
		{ietadm.Request{Op: ietadm.Update, TID: one, Params: "MaxBurstLength"}, unix.EINVAL, "Name=Value"},
		{ietadm.Request{Op: ietadm.Update, TID: one, Params: "MaxBurstLength=lots"}, unix.EINVAL, "MaxBurstLength"},
		{ietadm.Request{Op: ietadm.Update, TID: one, Params: "Nonsense=1"}, unix.EINVAL, "Nonsense"},
		{ietadm.Request{Op: ietadm.Update, TID: one, Redirect: ptr("somewhere")}, unix.EINVAL, "an IP address"},
		{ietadm.Request{Op: ietadm.New, TID: one, LUN: lun0, Params: "Path=/x"}, unix.EEXIST, "LUN 0 already"},
		{ietadm.Request{Op: ietadm.New, TID: one, LUN: ptr[uint64](0x4000), Params: "Path=/x"}, unix.EINVAL, "16383"},
		{ietadm.Request{Op: ietadm.New, TID: one, LUN: lun9, Params: "Path=" + r.dir + "/missing"}, unix.ENOENT, "lun 9: stat"},
		{ietadm.Request{Op: ietadm.New, TID: one, LUN: lun9, Params: "Path=" + r.dir}, unix.EINVAL, "no regular file"},
		{ietadm.Request{Op: ietadm.New, TID: one, LUN: lun9, Params: "Path=" + r.dir + "/b.img"}, unix.EBUSY, "open read-only"},
		{ietadm.Request{Op: ietadm.New, TID: one, LUN: lun9, Params: "Path=" + r.dir + "/link"}, unix.EBUSY, "locked"},
		{ietadm.Request{Op: ietadm.New, TID: one, LUN: lun9, Params: "Size=1"}, unix.EINVAL, `lun 9: no option "Size"`},
		{ietadm.Request{Op: ietadm.Delete, TID: one, LUN: lun9}, unix.ENOENT, "no LUN 9"},
		{ietadm.Request{Op: ietadm.Update, TID: one, LUN: lun0, Params: "Path=" + r.dir + "/missing"}, unix.ENOENT, "missing"},
		{ietadm.Request{Op: ietadm.Show, TID: one, SID: ptr[uint64](77)}, unix.ENOENT, "no session 77"},
		{ietadm.Request{Op: ietadm.Delete, TID: one, SID: ptr[uint64](77), CID: none}, unix.ENOENT, "no session 77"},
		{ietadm.Request{Op: ietadm.Delete, TID: one, CID: none}, unix.EINVAL, "--sid"},
		{ietadm.Request{Op: ietadm.New, TID: one, User: true, Params: "IncomingUser=joe"}, unix.EINVAL, "Password="},
		{ietadm.Request{Op: ietadm.New, TID: one, User: true, Params: "Password=joe"}, unix.EINVAL, "no user"},
		{ietadm.Request{Op: ietadm.Delete, TID: one, User: true, Params: "IncomingUser=joe"}, unix.ENOENT, `no user "joe"`},
		{ietadm.Request{Op: ietadm.Show, Proc: "kcore"}, unix.EINVAL, "volume or session"},
	} {
		r.fails(tt.req, tt.errno, tt.words)
	}
	if after := r.admin(ietadm.Request{Op: ietadm.Show}); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	c.Ready()
	c.Alive()
}

// The status files are what ietadm shows, soon after each change.
func TestWriteStatus(t *testing.T) {
	r := newRig(t, twoTargets)
	dir := t.TempDir()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.WriteStatus(ctx, dir) }()
	r.awaitFile(filepath.Join(dir, "volume"), "path:"+r.dir+"/b.img")
	r.login(1, disk)
	r.awaitFile(filepath.Join(dir, "session"), "initiator:"+node)
	r.admin(ietadm.Request{Op: ietadm.Delete, TID: ptr[uint32](1), LUN: ptr[uint64](1)})
	r.awaitFile(filepath.Join(dir, "volume"), "!path:"+r.dir+"/b.img")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
