package login

import (
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// A target that has moved says so before it asks for anything (RFC 7143 section
// 11.13.5); a discovery session is not redirected.
func TestRedirect(t *testing.T) {
	for _, x := range []struct {
		forGood bool
		want    pdu.LoginStatus
	}{{false, pdu.LoginMovedTemporarily}, {true, pdu.LoginMovedPermanently}} {
		k := begin(t, Credentials{User: "u", Secret: "s"})
		k.door.moved, k.door.forGood = "192.0.2.7:3260", x.forGood
		resp, done, err := k.say(sec, opn, who, "AuthMethod=CHAP")
		if err == nil || done || resp.PDU.Status != x.want || string(resp.Data) != "TargetAddress=192.0.2.7:3260\x00" {
			t.Errorf("status %04x, %q, %v", uint16(resp.PDU.Status), resp.Data, err)
		}
		if k.door.asked != 0 {
			t.Error("the door was asked")
		}
	}
	k := begin(t)
	k.door.moved = "192.0.2.7:3260"
	k.must(sec, opn, "InitiatorName=iqn.2026-11.io.x:i", "SessionType=Discovery", "AuthMethod=None")
}
