package ietd

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

const twoTargets = `
Target ` + disk + `
	Lun 0 Path=@/a.img
	Lun 1 Path=@/b.img,IOMode=ro
Target iqn.2026-11.io.example:other
	Lun 0 Path=@/c.img,IOMode=wb
`

// TestApply: what a new configuration does not concern goes on, in its sessions.
func TestApply(t *testing.T) {
	r := newRig(t, twoTargets)
	a, other := r.login(1, disk), r.login(2, "iqn.2026-11.io.example:other")
	data := []byte(strings.Repeat("keep", 128))
	for _, c := range []*iscsitest.Client{a, other} {
		if got := c.Do(iscsitest.Command{CDB: iscsitest.Write(3, 1), Out: data, Immediate: iscsitest.Most}); got.Status != 0 {
			t.Fatalf("%v", got)
		}
	}

	r.apply(strings.Replace(twoTargets, "Lun 1 Path=@/b.img,IOMode=ro", "Lun 7 Path=@/b.img", 1) + "Target iqn.2026-11.io.example:third\n\tLun 0 Type=nullio\n")
	a.Ready() // REPORTED LUNS DATA HAS CHANGED
	for _, c := range []*iscsitest.Client{a, other} {
		got := c.Do(iscsitest.Command{CDB: iscsitest.Read(3, 1), In: 512})
		if got.Status != 0 || string(got.Data) != string(data) {
			t.Errorf("after another configuration: %v", got)
		}
	}
	if got := a.Do(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: iscsitest.TestUnitReady()}); got.SenseCode() != 0x052500 {
		t.Errorf("LUN 1 is gone: %v", got)
	}
	r.login(3, "iqn.2026-11.io.example:third").Alive()

	r.apply("Target " + disk + "\n\tLun 0 Path=@/a.img\n")
	other.ExpectClosed()
	r.refused(pdu.LoginNotFound, iscsitest.Login{Initiator: node, Target: "iqn.2026-11.io.example:other"})
	a.Ready()
	a.Alive()
}

// A LUN that is another one now comes anew: read-only, with other bytes.
func TestApplyOtherLUN(t *testing.T) {
	r := newRig(t, twoTargets)
	c := r.login(1, disk)
	r.apply(strings.Replace(twoTargets, "Path=@/a.img", "Path=@/a.img,IOMode=ro", 1))
	c.Ready()
	if got := c.Do(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: make([]byte, 512), Immediate: iscsitest.Most}); got.SenseCode()>>16 != 7 {
		t.Errorf("a write to what is read-only now: %v", got)
	}
}

// What cannot be opened changes nothing.
func TestApplyFails(t *testing.T) {
	r := newRig(t, twoTargets)
	c := r.login(1, disk)
	before := r.Volumes()
	for _, conf := range []string{
		"Target " + disk + "\n\tLun 0 Path=@/missing\n",
		"Target " + disk + "\n\tLun 0 Path=@\n",
		"Target iqn.new\n\tLun 0 Path=@/a.img\n\tLun 1 Path=@/missing\n",
	} {
		err := r.Apply(context.Background(), r.parse(conf))
		if err == nil || !strings.Contains(err.Error(), "ietd.conf:") || !strings.Contains(err.Error(), "Lun") {
			t.Errorf("%q: %v", conf, err)
		}
	}
	if after := r.Volumes(); len(after) != len(before) || len(after[0].LUNs) != 2 {
		t.Errorf("%+v, before %+v", after, before)
	}
	c.Alive()
}

// The files are read again at each login.
func TestAccess(t *testing.T) {
	r := newRig(t, twoTargets)
	r.login(1, disk).Alive()
	deny := filepath.Join(r.dir, "access", "initiators.deny")
	if err := os.WriteFile(deny, []byte(disk+" ALL\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.refused(pdu.LoginNotFound, iscsitest.Login{Initiator: node, Target: disk})
	r.login(2, "iqn.2026-11.io.example:other").Alive()
	if err := os.WriteFile(filepath.Join(r.dir, "access", "targets.allow"), []byte(disk+" 192.0.2.1\nALL ALL\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(deny); err != nil {
		t.Fatal(err)
	}
	r.refused(pdu.LoginNotFound, iscsitest.Login{Initiator: node, Target: disk})
	r.login(3, "iqn.2026-11.io.example:other").Alive()
}

// Parameters of a stanza reach the sessions, with ietd's own defaults for the rest.
func TestParameters(t *testing.T) {
	r := newRig(t, "Target "+disk+"\n\tLun 0 Path=@/a.img\n\tMaxBurstLength 65536\n\tMaxOutstandingR2T 4\n\tQueuedCommands 16\n\tAlias a disk\n")
	c := r.login(1, disk)
	if room := c.MaxCmdSN - c.CmdSN + 1; room != 16 {
		t.Errorf("the command window is %d wide", room)
	}
	p := r.server.Sessions()[0].Negotiated
	if p.MaxBurstLength != 65536 || !p.InitialR2T || p.ImmediateData || p.MaxConnections != 1 || p.HeaderDigest || p.MaxRecvDataSegmentLength != 8192 {
		t.Errorf("%+v", p)
	}
}

// TestMessages: a login at debug level 2 says what ietd(8) says.
func TestMessages(t *testing.T) {
	r := newRig(t, "Target "+disk+"\n\tLun 0 Path=@/a.img\n\tIncomingUser joe secret-of-joe\n")
	as := func(user, secret string) iscsitest.Login {
		return iscsitest.Login{Initiator: node, Target: disk, CHAP: &iscsitest.CHAP{User: user, Secret: secret}}
	}
	r.refused(pdu.LoginAuthFailure, as("nobody\nlevel=ERROR", "x"))
	r.refused(pdu.LoginAuthFailure, as("joe", "wrong"))
	c := iscsitest.Dial(t, r.addr)
	c.Login(as("joe", "secret-of-joe"))
	r.apply("")
	for _, want := range []string{
		`level=INFO msg="connection request from 127.0.0.1" remote=127.0.0.1`, `msg="connection closed"`,
		`msg="unknown user nobody.level=ERROR"`, `msg="login by joe failed" user=joe`, `msg="succesfull login by joe" user=joe`,
		`level=DEBUG msg="Login request (security negotiation): 1" state=1`, `msg="Login request (operational negotiation): 6"`,
		`msg="exp_cmd_sn: `, `msg="conn_take_fd: 0 `, `msg="session_create: 0x`, `msg="session_find_name: ` + node + `,0x`,
		`msg="creaing target 1: ` + disk + `" tid=1 target=` + disk, `msg="attaching 1 to 1:0" device=1 tid=1 lun=0`,
		`msg="removing target 1"`, `msg="target_remove: 1,` + disk + `"`, `level=ERROR msg="need to shutdown target ` + disk + `"`,
		`msg="close conn 0 session `, `msg="session_close: 0x`, `msg="session_remove: 0x`, `msg="target_find_name: ` + disk + `"`,
		`level=DEBUG-4 msg="BHS: (0x`, `msg="Data: (0x`, `msg="496e69746961746f724e616d653d697 InitiatorName=i"`,
	} {
		if want == `msg="496e69746961746f724e616d653d697 InitiatorName=i"` {
			want = `496e69746961746f724e616d653d6971 InitiatorName=iq`
		}
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the log does not have %s", want)
		}
	}
	if strings.Contains(r.log.String(), "secret-of-joe") {
		t.Error("the log has a secret")
	}
}
