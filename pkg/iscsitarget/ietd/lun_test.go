package ietd

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/ietconf"
)

// TestIdentity: a host that moves from the old target sees the same disks. The values
// are md5sum's, of the name and the number.
func TestIdentity(t *testing.T) {
	const target = "iqn.2001-04.com.example:storage.disk1"
	tests := []struct {
		name   string
		lun    ietconf.LUN
		id     string // hexadecimal
		serial string
	}{
		{"LUN 0", ietconf.LUN{}, "@0", ""},
		{"LUN 1", ietconf.LUN{Number: 1}, "@1", ""},
		{"LUN 300", ietconf.LUN{Number: 300}, "@300", ""},
		{"ScsiId", ietconf.LUN{ScsiID: "disk"}, hex.EncodeToString([]byte("disk")) + "000000000000000000000000", ""},
		{"ScsiId of 16", ietconf.LUN{ScsiID: "0123456789abcdef"}, hex.EncodeToString([]byte("0123456789abcdef")), ""},
		{"ScsiSN", ietconf.LUN{ScsiSN: "SN1"}, "@0", "             SN1"},
		{"ScsiSN of 16", ietconf.LUN{ScsiSN: "0123456789abcdef"}, "@0", "0123456789abcdef"},
		{"ScsiSN of 17", ietconf.LUN{ScsiSN: "0123456789abcdefg"}, "@0", "               0123456789abcdefg"},
	}
	known := map[string]string{"@0": "2d4e7d2c3d99300f1c872d1f484f5a77", "@1": "39fa9126abde6ae74f7d8a99ae9256b6", "@300": "05dc05598964979be49f4dcfe88d4254"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := lunConfig(target, tt.lun, nil)
			want := tt.id
			if k, ok := known[want]; ok {
				want = k
			}
			if got := hex.EncodeToString([]byte(c.T10ID)); got != want || !c.T10Binary || c.NAA != 0 {
				t.Errorf("designator %s (binary %v, NAA %#x), want %s alone", got, c.T10Binary, c.NAA, want)
			}
			serial := tt.serial
			if serial == "" {
				serial = want
			}
			if c.Serial != serial {
				t.Errorf("serial %q, want %q", c.Serial, serial)
			}
			if c.Vendor != "IET" || c.Product != "VIRTUAL-DISK" || c.Revision != "0" {
				t.Errorf("%+v", c)
			}
		})
	}
}

// Identity=modern has a name of each kind, and other ones for other units.
func TestModernIdentity(t *testing.T) {
	seen := map[uint64]bool{}
	for _, target := range []string{"iqn.a", "iqn.b"} {
		for number := range uint16(3) {
			l := ietconf.LUN{Number: number, Identity: ietconf.ModernIdentity}
			c := lunConfig(target, l, nil)
			if c.NAA>>60 != 3 || c.T10Binary || c.T10ID == "" || c.Serial == "" || seen[c.NAA] {
				t.Errorf("%s LUN %d: %+v", target, number, c)
			}
			seen[c.NAA] = true
		}
	}
}

func TestModes(t *testing.T) {
	for l, want := range map[ietconf.LUN][2]bool{ // ReadOnly, WriteCache
		{Type: ietconf.FileIO, IOMode: ietconf.WriteThrough}: {false, false}, {Type: ietconf.FileIO, IOMode: ietconf.WriteBack}: {false, true},
		{Type: ietconf.FileIO, IOMode: ietconf.ReadOnly}: {true, false}, {Type: ietconf.BlockIO, IOMode: ietconf.WriteBack}: {false, false},
	} {
		if c := lunConfig("iqn.x", l, nil); c.ReadOnly != want[0] || c.WriteCache != want[1] {
			t.Errorf("%s, IOMode=%s: ReadOnly %v, WriteCache %v", l.Type, l.IOMode, c.ReadOnly, c.WriteCache)
		}
	}
}

// TestStateFileName pins where a LUN's state lies: it must never change.
func TestStateFileName(t *testing.T) {
	if got := stateFileName("/dev/alone"); got != "6519b766e8fc666975d12562f73f2d72.json" {
		t.Errorf("the state lies in %s", got)
	}
}

// LUNs that share a path are disks of their own; nothing of one is the other's.
func TestSharedPath(t *testing.T) {
	r := newRig(t, "Target iqn.a\n\tLun 0 Path=@/a.img\n\tLun 1 Path=@/a.img,IOMode=ro\nTarget iqn.b\n\tLun 0 Path=@/b.img\n")
	if m := r.media[r.dir+"/a.img"]; m == nil || m.luns != 2 || m.stateful || m.how.readOnly {
		t.Errorf("%+v", m)
	}
	if m := r.media[r.dir+"/b.img"]; m == nil || m.luns != 1 || !m.stateful {
		t.Errorf("%+v", m)
	}
	r.apply("Target iqn.a\n\tLun 1 Path=@/a.img,IOMode=ro\n")
	if m := r.media[r.dir+"/a.img"]; m == nil || m.luns != 1 || len(r.media) != 1 {
		t.Errorf("%+v, %d media", m, len(r.media))
	}
	r.apply("")
	if len(r.media) != 0 {
		t.Errorf("%d media are open", len(r.media))
	}
}

func TestGrants(t *testing.T) {
	in := ietconf.Accounts{Incoming: []ietconf.Account{{User: "a", Password: "1"}, {User: "b", Password: "2"}}, Outgoing: &ietconf.Account{User: "t", Password: "3"}}
	want := []iscsitarget.Grant{
		{CHAP: &iscsitarget.CHAP{User: "a", Secret: "1", MutualUser: "t", MutualSecret: "3"}},
		{CHAP: &iscsitarget.CHAP{User: "b", Secret: "2", MutualUser: "t", MutualSecret: "3"}},
	}
	if diff := cmp.Diff(want, grantsOf(in)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]iscsitarget.Grant{{}}, grantsOf(ietconf.Accounts{})); diff != "" {
		t.Errorf("without accounts (-want +got):\n%s", diff)
	}
}
