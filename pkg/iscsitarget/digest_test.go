package iscsitarget_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

// What login says about digests holds from the PDU behind it: in a normal session
// and in a discovery session, in the order that the initiator prefers.
func TestDigests(t *testing.T) {
	for offer, want := range map[string]bool{"None": false, "CRC32C": true, "CRC32C,None": true, "None,CRC32C": false} {
		for _, mixed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,mixed=%t", offer, mixed), func(t *testing.T) {
				data := "DataDigest=" + offer
				if mixed {
					data = "DataDigest=None"
				}
				r := newRig(t, iscsitarget.Options{})
				r.permit(iscsitarget.Grant{Initiator: node})
				c := r.dial(1)
				c.Login(iscsitest.Login{Initiator: node, Target: target, Keys: iscsitest.With("HeaderDigest="+offer, data)})
				if c.Params.HeaderDigest != want || c.Params.DataDigest != (want && !mixed) {
					t.Errorf("%+v", c.Params)
				}
				c.Ready()
				out := pattern(1, 100*block)
				good(t, c.Do(write(0, out)))
				r.holds(0, out)
				got := c.Do(iscsitest.Command{CDB: iscsitest.Read(0, 100), In: 100 * block})
				good(t, got)
				if !bytes.Equal(got.Data, out) {
					t.Error("read wrong")
				}

				d := r.dial(2)
				d.Login(iscsitest.Login{Initiator: node, Keys: []text.Pair{{Key: "HeaderDigest", Value: offer}, {Key: "DataDigest", Value: offer}}})
				if d.Params.HeaderDigest != want || d.Params.DataDigest != want {
					t.Errorf("discovery: %+v", d.Params)
				}
				if got := ask(d, "All"); got == "" {
					t.Error("no targets")
				}
			})
		}
	}
}

// What an initiator asks for in R2Ts at once is granted up to 8, and used.
func TestOutstandingR2Ts(t *testing.T) {
	for offer, want := range map[string]uint32{"1": 1, "4": 4, "16": 8} {
		t.Run(offer, func(t *testing.T) {
			r := newRig(t, iscsitarget.Options{})
			r.permit(iscsitarget.Grant{Initiator: node})
			c := r.dial(1)
			c.Login(iscsitest.Login{Initiator: node, Target: target, Keys: iscsitest.With(
				"MaxOutstandingR2T="+offer, "MaxBurstLength=4096", "FirstBurstLength=512", "HeaderDigest=CRC32C", "DataDigest=CRC32C")})
			if c.Params.MaxOutstandingR2T != want {
				t.Errorf("%d R2Ts at once, want %d", c.Params.MaxOutstandingR2T, want)
			}
			c.Ready()
			out := pattern(1, 20*4096)
			itt := c.Start(iscsitest.Command{CDB: iscsitest.Write(0, len(out)/block), Out: out, Hold: true})
			asks := []pdu.R2T{c.WaitR2T(itt)}
			for i := 0; i < 20; i++ {
				for len(asks) < min(20, i+int(want)) {
					asks = append(asks, c.WaitR2T(itt))
				}
				c.Serve(asks[i])
			}
			good(t, c.Wait(itt))
			r.holds(0, out)
		})
	}
}
