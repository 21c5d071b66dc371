package session

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
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
		{false, "MaxRecvDataSegmentLength=511\x00", "MaxRecvDataSegmentLength=Reject\x00"},
		{false, "MaxRecvDataSegmentLength=512\x00", ""},
		{false, "AuthMethod=None\x00X-a=\x00TargetName=iqn.t\x00", "AuthMethod=Reject\x00X-a=NotUnderstood\x00TargetName=Reject\x00"},
		{true, "SendTargets=All\x00MaxRecvDataSegmentLength=512\x00", "TargetName=x\x00MaxRecvDataSegmentLength=Reject\x00"},
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

// Text that is none, exchanges that nobody began, and what breaks the rules of
// one are rejected.
func TestTextRejected(t *testing.T) {
	long := strings.Repeat("x", 64)
	for name, tt := range map[string]struct {
		req       pdu.TextRequest
		data      string
		discovery bool
		reason    byte
	}{
		"no text":           {question(), "\xff\xfe\xfd", false, pdu.RejectProtocolError},
		"long key":          {question(), "X" + long + "=1\x00", false, pdu.RejectProtocolError},
		"twice":             {question(), "SendTargets=All\x00SendTargets=All\x00", false, pdu.RejectProtocolError},
		"unknown tag":       {pdu.TextRequest{Final: true, TTT: 5}, "", false, pdu.RejectInvalidField},
		"C bit, goes on":    {pdu.TextRequest{Continue: true, TTT: 5}, "", false, pdu.RejectInvalidField},
		"F and C bit":       {pdu.TextRequest{Final: true, Continue: true, TTT: pdu.NoTag}, "", false, pdu.RejectProtocolError},
		"reserved task tag": {pdu.TextRequest{Final: true, TTT: pdu.NoTag, ITT: pdu.NoTag}, "", false, pdu.RejectInvalidField},
		"a thousand keys":   {question(), manyKeys(1000), false, pdu.RejectProtocolError},
		"a long answer":     {question(), longKeys(110), false, pdu.RejectProtocolError},
		"SendTargets twice": {question(), "SendTargets=a\x00SendTargets=b\x00", false, pdu.RejectProtocolError},
		"too long":          {question(), strings.Repeat("x", maxTextRequest+1), false, pdu.RejectLongOperation},
		"discovery of else": {question(), "MaxRecvDataSegmentLength=512\x00", true, pdu.RejectProtocolError},
		"discovery, empty":  {question(), "", true, pdu.RejectProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			r := newSite(t).join(usual(), func(i *Info) { i.Discovery = tt.discovery })
			if tt.req.ITT == 0 {
				tt.req.ITT = 9
			}
			for range 2 * QueueDepth {
				tt.req.CmdSN = r.CmdSN
				r.CmdSN++
				r.refuses(tt.reason, tt.req, tt.data)
			}
			r.Alive()
		})
	}
}

// refuses sends a Text Request that gets a Reject.
func (r *rig) refuses(reason byte, req pdu.TextRequest, data string) {
	r.Helper()
	r.Send(req.Header(), []byte(data))
	if p := r.Expect(pdu.OpReject); pdu.ParseReject(&p.BHS).Reason != reason {
		r.Fatalf("reason %#02x, want %#02x", pdu.ParseReject(&p.BHS).Reason, reason)
	}
}

// talk is a text exchange of a test: it sends parts and keeps the tags.
type talk struct {
	*rig
	itt, ttt uint32
}

func (r *rig) talk() *talk { return &talk{rig: r, itt: r.ITT(), ttt: pdu.NoTag} }

func (k *talk) say(final, more bool, data string) (pdu.TextResponse, string) {
	k.Helper()
	resp, got := k.ask(pdu.TextRequest{Final: final, Continue: more, ITT: k.itt, TTT: k.ttt}, data)
	if resp.ITT != k.itt || resp.Final != (resp.TTT == pdu.NoTag) || resp.Final && resp.Continue || !resp.Final && resp.TTT == k.ttt {
		k.Fatalf("got %+v after the tag %#x", resp, k.ttt)
	}
	k.ttt = resp.TTT
	return resp, string(got)
}

func (k *talk) refused(reason byte, req pdu.TextRequest, data string) {
	k.Helper()
	req.CmdSN, req.Immediate = k.CmdSN, !req.Immediate
	if !req.Immediate {
		k.CmdSN++
	}
	k.refuses(reason, req, data)
}

// A request in parts, cut at every byte, is one request; until it is whole the
// answers are empty. What keeps F at 0 keeps the exchange open.
func TestTextInParts(t *testing.T) {
	r := newSite(t).join(usual())
	const whole, want = "X-a=1\x00HeaderDigest=None\x00", "X-a=NotUnderstood\x00HeaderDigest=Reject\x00"
	for cut := range len(whole) + 1 {
		k := r.talk()
		if resp, got := k.say(false, true, whole[:cut]); got != "" || resp.Continue || resp.Final {
			t.Fatalf("cut at %d: %+v, %q", cut, resp, got)
		}
		if resp, got := k.say(true, false, whole[cut:]); got != want || !resp.Final {
			t.Fatalf("cut at %d: %+v, %q", cut, resp, got)
		}
	}
	k := r.talk()
	if resp, got := k.say(false, false, "X-a=1\x00"); got != "X-a=NotUnderstood\x00" || resp.Final || resp.Continue {
		t.Errorf("F=0: %+v, %q", resp, got)
	}
	if resp, got := k.say(true, false, "X-b=1\x00"); got != "X-b=NotUnderstood\x00" || !resp.Final {
		t.Errorf("F=1: %+v, %q", resp, got)
	}
}

// Chains of requests end: empty ones by their number, others by their length,
// those of whole keys by what they would be answered with.
func TestTextChainsEnd(t *testing.T) {
	r := newSite(t).join(usual())
	for name, tt := range map[string]struct {
		more   bool
		data   func(i int) string
		n      int
		reason byte
	}{
		"empty":       {true, func(int) string { return "" }, maxTextRequests, pdu.RejectLongOperation},
		"long":        {true, func(int) string { return strings.Repeat("x", 4096) }, maxTextRequest / 4096, pdu.RejectLongOperation},
		"empty, F=0":  {false, func(int) string { return "" }, maxTextRequests, pdu.RejectLongOperation},
		"a key again": {false, func(int) string { return "X-a=1\x00" }, 1, pdu.RejectProtocolError},
		"keys":        {false, func(i int) string { return manyKeysFrom(100*i, 100) }, 1, pdu.RejectProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			k := r.talk()
			for i := range tt.n {
				k.say(false, tt.more, tt.data(i))
			}
			k.refused(tt.reason, pdu.TextRequest{Continue: tt.more, ITT: k.itt, TTT: k.ttt}, tt.data(tt.n))
			// The exchange is over: its tag is void, and a new one begins.
			k.refused(pdu.RejectInvalidField, pdu.TextRequest{Final: true, ITT: k.itt, TTT: k.ttt}, "")
			if _, got := r.talk().say(true, false, "X-a=1\x00"); got != "X-a=NotUnderstood\x00" {
				t.Errorf("a new one: %q", got)
			}
		})
	}
}

// While an exchange is open its tags must fit; a request without a Target
// Transfer Tag begins anew, and what was said before it is forgotten.
func TestTextTags(t *testing.T) {
	r := newSite(t).join(usual())
	open := func() *talk {
		k := r.talk()
		k.say(false, true, "X-old=")
		return k
	}
	for name, wrong := range map[string]func(*talk) (byte, pdu.TextRequest){
		"another TTT": func(k *talk) (byte, pdu.TextRequest) {
			return pdu.RejectInvalidField, pdu.TextRequest{ITT: k.itt, TTT: k.ttt + 1}
		},
		"another ITT": func(k *talk) (byte, pdu.TextRequest) {
			return pdu.RejectInvalidField, pdu.TextRequest{ITT: k.itt + 1, TTT: k.ttt}
		},
		"reserved ITT": func(k *talk) (byte, pdu.TextRequest) {
			return pdu.RejectInvalidField, pdu.TextRequest{ITT: pdu.NoTag, TTT: k.ttt}
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := open()
			reason, req := wrong(k)
			k.refused(reason, req, "1\x00")
			k.refused(pdu.RejectInvalidField, pdu.TextRequest{Final: true, ITT: k.itt, TTT: k.ttt}, "1\x00")
		})
	}
	k := open()
	k.refused(pdu.RejectProtocolError, pdu.TextRequest{Immediate: true, Final: true, ITT: k.itt, TTT: k.ttt}, "1\x00") // the I bit changed
	k = open()
	k.ttt = pdu.NoTag
	if _, got := k.say(true, false, "X-new=1\x00"); got != "X-new=NotUnderstood\x00" {
		t.Errorf("after a reset: %q", got)
	}
}

// Nothing new is taken before a long answer is out.
func TestTextBeforeTheAnswerIsOut(t *testing.T) {
	p := usual()
	p.MaxSendDataSegmentLength = 512
	r := newSite(t).join(p)
	for _, req := range []pdu.TextRequest{{Final: true}, {Continue: true}} {
		k := r.talk()
		if resp, _ := k.say(true, false, manyKeys(100)); !resp.Continue {
			t.Fatalf("%+v", resp)
		}
		req.ITT, req.TTT = k.itt, k.ttt
		data := "X-a=1\x00"
		if req.Continue {
			data = ""
		}
		k.refused(pdu.RejectProtocolError, req, data)
	}
}

// MaxRecvDataSegmentLength declared anew holds for what comes behind the end of
// the exchange, up and down, and not if it is rejected.
func TestMaxRecvDataSegmentLengthAnew(t *testing.T) {
	p := usual()
	p.MaxSendDataSegmentLength = 8192
	r := newSite(t).join(p)
	want := pattern(1, 64<<10)
	r.fill(0, want)
	reads := func(length int) {
		t.Helper()
		got := r.Do(iscsitest.Command{CDB: iscsitest.Read(0, 128), In: 64 << 10})
		good(t, got)
		if !bytes.Equal(got.Data, want) || got.DataIns != len(want)/length {
			t.Fatalf("%d bytes in %d Data-Ins, want segments of %d", len(got.Data), got.DataIns, length)
		}
	}
	reads(8192)
	for _, length := range []int{512, 4096, 65536, 1024} {
		k := r.talk()
		k.say(false, false, fmt.Sprintf("MaxRecvDataSegmentLength=%d\x00", length))
		reads(int(r.Params.MaxRecvDataSegmentLength)) // not before the end
		r.Params.MaxRecvDataSegmentLength = max(r.Params.MaxRecvDataSegmentLength, uint32(length))
		if resp, _ := k.say(true, false, ""); !resp.Final {
			t.Fatalf("%+v", resp)
		}
		r.Params.MaxRecvDataSegmentLength = uint32(length) // the client checks what comes
		reads(length)
	}
	k := r.talk()
	k.say(false, false, "MaxRecvDataSegmentLength=512\x00")
	k.refused(pdu.RejectProtocolError, pdu.TextRequest{Final: true, ITT: k.itt, TTT: k.ttt}, "MaxRecvDataSegmentLength=512\x00")
	reads(1024)
}

// An answer that makes PDUs shorter waits for the reads that may send longer
// ones; meanwhile no other text is taken, and everything else is.
func TestShorterPDUsWaitForReads(t *testing.T) {
	r := newSite(t).join(usual())
	hold := r.dev.Hold(iscsitest.ReadAt)
	read := r.Start(iscsitest.Command{CDB: iscsitest.Read(0, 512), In: 256 << 10})
	hold.Await(t)
	itt := r.ITT()
	r.Send(pdu.TextRequest{Immediate: true, Final: true, ITT: itt, TTT: pdu.NoTag, CmdSN: r.CmdSN}.Header(), []byte("MaxRecvDataSegmentLength=512\x00"))
	r.silent()
	r.refuses(pdu.RejectProtocolError, pdu.TextRequest{Immediate: true, Final: true, ITT: r.ITT(), TTT: pdu.NoTag, CmdSN: r.CmdSN}, "")
	hold.Release()
	good(t, r.Wait(read))
	if p := r.Expect(pdu.OpTextResponse); p.BHS.ITT() != itt || !p.BHS.Final() {
		t.Errorf("% x", p.BHS[:])
	}
	r.Params.MaxRecvDataSegmentLength = 512
	good(t, r.Do(iscsitest.Command{CDB: iscsitest.Read(0, 16), In: 8192}))
}

// A session that ends while such an answer waits leaves nothing behind.
func TestSessionEndsWhileTextWaits(t *testing.T) {
	r := newSite(t).join(usual())
	hold := r.dev.Hold(iscsitest.ReadAt)
	r.Start(iscsitest.Command{CDB: iscsitest.Read(0, 1), In: block})
	hold.Await(t)
	r.Send(pdu.TextRequest{Immediate: true, Final: true, ITT: r.ITT(), TTT: pdu.NoTag, CmdSN: r.CmdSN}.Header(), []byte("MaxRecvDataSegmentLength=512\x00"))
	r.Alive()
	r.s.Close()
	hold.Release()
	<-r.s.Done()
}

// longKeys are n keys of the longest kind, whose answers are longer than they.
func longKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X%062d=\x00", i)
	}
	return b.String()
}

func manyKeys(n int) string { return manyKeysFrom(0, n) }

func manyKeysFrom(first, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X%d=\x00", first+i)
	}
	return b.String()
}
