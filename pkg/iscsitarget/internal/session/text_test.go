package session

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
)

// ask sends a Text Request of its own and returns the answer.
func (r *rig) ask(req pdu.TextRequest, data string) (pdu.TextResponse, []byte) {
	r.Helper()
	req.Immediate, req.CmdSN = true, r.CmdSN
	if req.ITT == 0 {
		req.ITT = r.ITT()
	}
	r.Send(req.Header(), []byte(data))
	p := r.Expect(pdu.OpTextResponse)
	return pdu.ParseTextResponse(&p.BHS), p.Data
}

func question() pdu.TextRequest { return pdu.TextRequest{Final: true, TTT: pdu.NoTag} }

// SendTargets with an answer that does not fit into a PDU comes in parts.
func TestSendTargets(t *testing.T) {
	st := newSite(t)
	for i := range 100 {
		st.targets = append(st.targets, text.Pair{Key: "TargetName", Value: fmt.Sprintf("iqn.2026-11.io.example:%d", i)})
	}
	p := usual()
	p.MaxSendDataSegmentLength = 512
	r := st.join(p, func(i *Info) { i.Discovery = true })
	for range 3 {
		resp, all := r.ask(question(), "SendTargets=All\x00")
		for !resp.Final {
			var part []byte
			if !resp.Continue || resp.TTT == pdu.NoTag {
				t.Fatalf("%+v", resp)
			}
			resp, part = r.ask(pdu.TextRequest{Final: true, TTT: resp.TTT, ITT: resp.ITT}, "")
			all = append(all, part...)
		}
		if want := text.Encode(st.targets); !slices.Equal(all, want) {
			t.Fatalf("%d bytes, want %d", len(all), len(want))
		}
	}
}

func TestTextAnswers(t *testing.T) {
	for _, tt := range []struct {
		discovery bool
		ask, want string
	}{
		{false, "SendTargets=All\x00", "SendTargets=Reject\x00"},
		{true, "SendTargets=\x00", "SendTargets=Reject\x00"},
		{false, "SendTargets=\x00", "TargetName=x\x00"},
		{true, "SendTargets=iqn.t\x00", "TargetName=x\x00"},
		{false, "X-com.example=1\x00", "X-com.example=NotUnderstood\x00"},
		{false, "HeaderDigest=CRC32C\x00", "HeaderDigest=Reject\x00"},
		{false, "MaxRecvDataSegmentLength=512\x00", "MaxRecvDataSegmentLength=Reject\x00"},
		{false, "InitiatorAlias=me\x00", ""},
		{false, "", ""},
	} {
		t.Run(tt.ask, func(t *testing.T) {
			st := newSite(t)
			st.targets = []text.Pair{{Key: "TargetName", Value: "x"}}
			r := st.join(usual(), func(i *Info) { i.Discovery = tt.discovery })
			if resp, got := r.ask(question(), tt.ask); string(got) != tt.want || !resp.Final {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Text that is none, exchanges that nobody began, and requests in parts are
// rejected.
func TestTextRejected(t *testing.T) {
	long := strings.Repeat("x", 64)
	for name, tt := range map[string]struct {
		req  pdu.TextRequest
		data string
	}{
		"no text":           {question(), "\xff\xfe\xfd"},
		"long key":          {question(), "X" + long + "=1\x00"},
		"twice":             {question(), "SendTargets=All\x00SendTargets=All\x00"},
		"nothing goes on":   {pdu.TextRequest{Final: true, TTT: textTag}, ""},
		"unknown tag":       {pdu.TextRequest{Final: true, TTT: 5}, ""},
		"C bit":             {pdu.TextRequest{Continue: true, TTT: pdu.NoTag}, "SendTar"},
		"C bit, no data":    {pdu.TextRequest{Continue: true, TTT: pdu.NoTag}, ""},
		"C bit, goes on":    {pdu.TextRequest{Continue: true, TTT: textTag}, ""},
		"a thousand keys":   {question(), manyKeys(1000)},
		"SendTargets twice": {question(), "SendTargets=a\x00SendTargets=b\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newSite(t).join(usual())
			for range 2 * queueDepth {
				tt.req.CmdSN, tt.req.ITT = r.CmdSN, 9
				r.CmdSN++
				r.Send(tt.req.Header(), []byte(tt.data))
				if p := r.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != pdu.RejectProtocolError {
					t.Fatalf("reason %#02x", pdu.ParseReject(&p.BHS).Reason)
				}
			}
			r.Alive()
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X%d=\x00", i)
	}
	return b.String()
}
