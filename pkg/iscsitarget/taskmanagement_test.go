package iscsitarget_test

import (
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// What login negotiates of task management is what the session does, and what the
// logical unit reports (RFC 7143 sections 13.23 and 13.24, RFC 7144).
func TestTaskManagementAsNegotiated(t *testing.T) {
	for _, tt := range []struct {
		level    string
		want     uint8
		reported [2]byte
	}{
		{"1", pdu.TMFNotSupported, [2]byte{0xf8, 0}},
		{"2", pdu.TMFComplete, [2]byte{0xfc, 7}},
	} {
		r := newRig(t, iscsitarget.Options{})
		r.permit(iscsitarget.Grant{Initiator: node})
		c := r.dial(1)
		c.Login(iscsitest.Login{Initiator: node, Target: target, Keys: iscsitest.With("TaskReporting=FastAbort,RFC3720", "iSCSIProtocolLevel="+tt.level)})
		c.Ready()
		res := c.Do(iscsitest.Command{CDB: []byte{0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0}, In: 4})
		good(t, res)
		if [2]byte(res.Data) != tt.reported {
			t.Errorf("level %s: reports %x", tt.level, res.Data)
		}
		manage := func(f uint8) uint8 {
			c.Send(pdu.TaskManagement{Immediate: true, Function: f, ITT: c.ITT(), CmdSN: c.CmdSN, ExpStatSN: c.ExpStatSN}.Header(), nil)
			p := c.Expect(pdu.OpTaskManagementResponse)
			return pdu.ParseTaskManagementResponse(&p.BHS).Response
		}
		if got := manage(pdu.QueryTaskSet); got != tt.want {
			t.Errorf("level %s: QUERY TASK SET answered %d", tt.level, got)
		}
		// FastAbort: the data that is owed is not waited for.
		c.WaitR2T(c.Start(iscsitest.Command{CDB: iscsitest.Write(0, 1), Out: make([]byte, block), Hold: true}))
		if got := manage(pdu.LogicalUnitReset); got != pdu.TMFComplete {
			t.Errorf("LOGICAL UNIT RESET answered %d", got)
		}
	}
}

// An initiator port whose session is reinstated is told that its nexus was lost, and
// a new one of a power on (SAM-5 section 6.3.4).
func TestNexusLossIsTold(t *testing.T) {
	r := newRig(t, iscsitarget.Options{})
	r.permit(iscsitarget.Grant{Initiator: node})
	begin := func(isid byte) *iscsitest.Client {
		c := r.dial(isid)
		c.Login(iscsitest.Login{Initiator: node, Target: target})
		return c
	}
	wantStatus(t, "a new session", begin(1).Do(ready()), 2, 0x062900)
	wantStatus(t, "one that reinstates it", begin(1).Do(ready()), 2, 0x062907)
	wantStatus(t, "one of another port", begin(2).Do(ready()), 2, 0x062900)
}
