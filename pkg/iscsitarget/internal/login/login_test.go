package login

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDoor asks for credentials, or refuses, and counts how often it is asked.
type fakeDoor struct {
	creds             []Credentials
	refuse            pdu.LoginStatus
	asked             int
	initiator, target string
	moved             string
	forGood           bool
	alias             string
	proofs            []proof
}

func (d *fakeDoor) Moved(_, _ string) (string, bool) { return d.moved, d.forGood }

func (d *fakeDoor) Wants(string) (text.Params, string) { return text.Defaults(), d.alias }

func (d *fakeDoor) Proved(user string, err error) { d.proofs = append(d.proofs, proof{user, err}) }

// proof is what the door was told of one.
type proof struct {
	user string
	err  error
}

func (d *fakeDoor) Open(initiator, target string) ([]Credentials, pdu.LoginStatus) {
	d.asked++
	d.initiator, d.target = initiator, target
	return d.creds, d.refuse
}

// talk is a login in a test.
type talk struct {
	testing.TB
	*Machine
	door *fakeDoor
	req  pdu.LoginRequest // what every request has
}

func begin(t testing.TB, creds ...Credentials) *talk {
	d := &fakeDoor{creds: creds}
	return &talk{TB: t, door: d, Machine: New(d, 1),
		req: pdu.LoginRequest{ISID: pdu.ISID{1}, CID: 2, ITT: 3, CmdSN: 4}}
}

const who = "InitiatorName=iqn.2026-11.io.x:i\x00TargetName=iqn.2026-11.io.x:t\x00SessionType=Normal\x00"

// say sends a request in stage csg, with T and NSG where nsg is above it.
func (k *talk) say(csg, nsg uint8, keys ...string) (Response, bool, error) {
	req := k.req
	req.CSG = csg
	if nsg > csg {
		req.Transit, req.NSG = true, nsg
	}
	data := strings.Join(keys, "\x00")
	if data != "" && !strings.HasSuffix(data, "\x00") {
		data += "\x00"
	}
	return k.Step(req, []byte(data))
}

// must is say that succeeds, and returns the keys of the answer.
func (k *talk) must(csg, nsg uint8, keys ...string) []text.Pair {
	k.Helper()
	resp, done, err := k.say(csg, nsg, keys...)
	if err != nil {
		k.Fatalf("stage %d to %d, %q: %v", csg, nsg, keys, err)
	}
	if done != (nsg == pdu.StageFullFeature && resp.PDU.Transit) {
		k.Fatalf("done: %t", done)
	}
	pairs, err := text.Parse(resp.Data)
	if err != nil {
		k.Fatal(err)
	}
	return pairs
}

// refused is say that is refused with that status.
func (k *talk) refused(want pdu.LoginStatus, csg, nsg uint8, keys ...string) {
	k.Helper()
	resp, done, err := k.say(csg, nsg, keys...)
	if err == nil || done || resp.PDU.Status != want || resp.PDU.Transit || len(resp.Data) != 0 {
		k.Fatalf("stage %d to %d, %q: status %04x, done %t, %d bytes, %v; want %04x",
			csg, nsg, keys, uint16(resp.PDU.Status), done, len(resp.Data), err, uint16(want))
	}
}

const (
	sec = pdu.StageSecurity
	opn = pdu.StageOperational
	ffp = pdu.StageFullFeature
)

// Every combination of stages and flags, as a first request and as a second.
func TestStages(t *testing.T) {
	for bits := range 64 {
		req := pdu.LoginRequest{CSG: uint8(bits & 3), NSG: uint8(bits >> 2 & 3), Transit: bits&16 != 0, Continue: bits&32 != 0}
		t.Run(fmt.Sprintf("CSG=%d,NSG=%d,T=%t,C=%t", req.CSG, req.NSG, req.Transit, req.Continue), func(t *testing.T) {
			legal := req.CSG <= opn && (!req.Transit || !req.Continue && req.NSG > req.CSG && req.NSG != 2)
			for _, first := range []uint8{99, sec, opn} {
				k := begin(t)
				want := pdu.LoginSuccess
				if first != 99 {
					k.must(first, 0, who)
					if req.CSG != first {
						want = pdu.LoginInvalidDuring
					}
				}
				if !legal {
					want = pdu.LoginInitiatorError
				}
				full := k.req
				full.CSG, full.NSG, full.Transit, full.Continue = req.CSG, req.NSG, req.Transit, req.Continue
				resp, done, err := k.Step(full, []byte(who))
				if resp.PDU.Status != want || (err == nil) != (want == pdu.LoginSuccess) {
					t.Fatalf("after %d: status %04x, %v; want %04x", first, uint16(resp.PDU.Status), err, uint16(want))
				}
				granted := err == nil && req.Transit
				if resp.PDU.Transit != granted || done != (granted && req.NSG == ffp) {
					t.Errorf("after %d: T %t, done %t", first, resp.PDU.Transit, done)
				}
			}
		})
	}
}

// Fixed fields that may not change between requests.
func TestFieldsThatChange(t *testing.T) {
	for name, change := range map[string]func(*pdu.LoginRequest){
		"ISID": func(r *pdu.LoginRequest) { r.ISID[5]++ }, "TSIH": func(r *pdu.LoginRequest) { r.TSIH++ },
		"CID": func(r *pdu.LoginRequest) { r.CID++ }, "ITT": func(r *pdu.LoginRequest) { r.ITT++ },
	} {
		t.Run(name, func(t *testing.T) {
			k := begin(t)
			k.must(sec, 0, who)
			change(&k.req)
			k.refused(pdu.LoginInitiatorError, sec, opn)
		})
	}
}

func TestVersion(t *testing.T) {
	k := begin(t)
	k.req.VersionMin, k.req.VersionMax = 1, 2
	k.refused(pdu.LoginUnsupportedVersion, sec, opn, who)
	k = begin(t)
	k.req.VersionMax = 255
	k.must(sec, opn, who)
}

func TestFirstRequest(t *testing.T) {
	name := "InitiatorName=iqn.2026-11.io.x:i"
	for _, tt := range []struct {
		what string
		keys []string
		want pdu.LoginStatus
	}{
		{"nothing", nil, pdu.LoginMissingParameter},
		{"no initiator", []string{"TargetName=iqn.2026-11.io.x:t"}, pdu.LoginMissingParameter},
		{"empty initiator", []string{"InitiatorName=", "TargetName=iqn.2026-11.io.x:t"}, pdu.LoginMissingParameter},
		{"bad initiator", []string{"InitiatorName=fred", "TargetName=iqn.2026-11.io.x:t"}, pdu.LoginInitiatorError},
		{"long initiator", []string{"InitiatorName=iqn." + strings.Repeat("x", 220), "TargetName=iqn.x"}, pdu.LoginInitiatorError},
		{"comma in initiator", []string{"InitiatorName=iqn.a,i,0x1", "TargetName=iqn.x"}, pdu.LoginInitiatorError},
		{"no target", []string{name}, pdu.LoginMissingParameter},
		{"empty target", []string{name, "TargetName="}, pdu.LoginMissingParameter},
		{"unknown type", []string{name, "SessionType=Odd"}, pdu.LoginNoSessionType},
		{"discovery", []string{name, "SessionType=Discovery"}, pdu.LoginSuccess},
		{"normal by default", []string{name, "TargetName=iqn.x"}, pdu.LoginSuccess},
		{"twice", []string{name, name}, pdu.LoginInitiatorError},
		{"no text", []string{"\xff\xfe"}, pdu.LoginInitiatorError},
	} {
		t.Run(tt.what, func(t *testing.T) {
			k := begin(t)
			if tt.want == pdu.LoginSuccess {
				k.must(sec, opn, tt.keys...)
				return
			}
			k.refused(tt.want, sec, opn, tt.keys...)
		})
	}
}

// What the door refuses is told as it says, and the door is asked once.
func TestDoor(t *testing.T) {
	k := begin(t)
	k.door.refuse = pdu.LoginNotFound
	k.refused(pdu.LoginNotFound, sec, opn, who)
	k = begin(t)
	k.must(sec, 0, "InitiatorName=IQN.2026-11.io.X:I", "TargetName=IQN.2026-11.io.X:T")
	k.must(sec, opn, "InitiatorName=iqn.2026-11.io.x:i", "TargetName=iqn.2026-11.io.x:T", "SessionType=Normal")
	k.must(opn, ffp, "InitiatorName=iqn.2026-11.io.x:i")
	if k.door.asked != 1 || k.door.initiator != "iqn.2026-11.io.x:i" || k.door.target != "iqn.2026-11.io.x:t" {
		t.Errorf("%+v", k.door)
	}
	if r := k.Result(); r.Initiator != k.door.initiator || r.Target != k.door.target || r.Discovery || r.Proven != -1 {
		t.Errorf("%+v", r)
	}
}

// Whoever logs in, and where, does not change during login.
func TestIdentityChanges(t *testing.T) {
	for _, key := range []string{"InitiatorName=iqn.other", "InitiatorName=", "TargetName=iqn.other", "SessionType=Discovery"} {
		k := begin(t)
		k.must(sec, opn, who)
		k.refused(pdu.LoginInitiatorError, opn, ffp, key)
	}
	k := begin(t)
	k.must(sec, opn, "InitiatorName=iqn.i.x", "SessionType=Discovery")
	k.refused(pdu.LoginInitiatorError, opn, ffp, "SessionType=Normal", "TargetName=iqn.x")
}

func TestResult(t *testing.T) {
	k := begin(t)
	pairs := k.must(opn, ffp, who, "MaxBurstLength=4096", "InitialR2T=No", "X-a=1")
	want := []text.Pair{
		{Key: "TargetPortalGroupTag", Value: "1"}, {Key: "MaxBurstLength", Value: "4096"}, {Key: "InitialR2T", Value: "No"},
		{Key: "X-a", Value: "NotUnderstood"}, {Key: "MaxRecvDataSegmentLength", Value: "262144"},
	}
	if !slices.Equal(pairs, want) {
		t.Errorf("answer %v", pairs)
	}
	r := k.Result()
	if r.ISID != k.req.ISID || r.CID != 2 || r.CmdSN != 4 || r.Params.MaxBurstLength != 4096 || r.Params.InitialR2T || r.Params.FirstBurstLength != 4096 {
		t.Errorf("%+v", r)
	}
}

// A login in parts, cut at every byte, is the same login.
func TestContinue(t *testing.T) {
	whole := who + "InitialR2T=No\x00MaxBurstLength=8192\x00"
	for cut := range len(whole) + 1 {
		k := begin(t)
		part := k.req
		part.CSG, part.Continue = opn, true
		resp, done, err := k.Step(part, []byte(whole[:cut]))
		if err != nil || done || len(resp.Data) != 0 || resp.PDU.Transit {
			t.Fatalf("%d bytes: %v", cut, err)
		}
		pairs := k.must(opn, ffp, whole[cut:])
		if v, _ := text.Get(pairs, "MaxBurstLength"); v != "8192" || k.Result().Params.InitialR2T {
			t.Fatalf("cut at %d: %v", cut, pairs)
		}
	}
}

// Chains, keys and exchanges are bounded, and so is what is answered to them.
func TestBounds(t *testing.T) {
	chain := func(data string) (n int, err error) {
		k := begin(t)
		part := k.req
		part.Continue = true
		for n = 0; err == nil && n < 1000; n++ {
			_, _, err = k.Step(part, []byte(data))
			if cap(k.pending) > 2*maxRequest {
				t.Errorf("%d bytes kept", cap(k.pending))
			}
		}
		return n, err
	}
	if n, err := chain(""); n != maxExchanges+1 {
		t.Errorf("%d empty requests, %v", n, err)
	}
	if n, err := chain(strings.Repeat("x", MaxData)); n != maxRequest/MaxData+1 {
		t.Errorf("%d full requests, %v", n, err)
	}
	k := begin(t)
	k.must(sec, 0, who)
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("X-%s%d=", strings.Repeat("k", 55), i))
	}
	if resp, _, err := k.say(sec, 0, many...); err != nil || len(resp.Data) > maxReply {
		t.Errorf("%d bytes: %v", len(resp.Data), err)
	}
	k.refused(pdu.LoginInitiatorError, sec, 0, append(many, manyMore(29)...)...)
	k = begin(t)
	for range maxExchanges {
		k.must(sec, 0, who)
	}
	k.refused(pdu.LoginInitiatorError, sec, opn)
}

func manyMore(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("Y%d=", i))
	}
	return keys
}

// A key that was negotiated may not come again, in no later request either.
func TestKeyTwice(t *testing.T) {
	k := begin(t)
	k.must(opn, 0, who, "MaxBurstLength=4096")
	k.refused(pdu.LoginInitiatorError, opn, ffp, "MaxBurstLength=4096")
}

func TestOperationalKeysInTheSecurityStage(t *testing.T) {
	for _, key := range []string{"HeaderDigest=None", "DataDigest=None", "InitialR2T=No", "ImmediateData=No"} {
		begin(t).refused(pdu.LoginInvalidDuring, sec, opn, who, key)
	}
}

func TestDiscovery(t *testing.T) {
	k := begin(t)
	pairs := k.must(opn, ffp, "InitiatorName=iqn.i.x", "SessionType=Discovery", "TargetName=iqn.t.x", "MaxBurstLength=512")
	if _, ok := text.Get(pairs, "TargetPortalGroupTag"); ok {
		t.Error("a discovery session has no portal group")
	}
	if r := k.Result(); !r.Discovery || r.Target != "" || k.door.target != "" {
		t.Errorf("%+v", r)
	}
}

func TestRefuse(t *testing.T) {
	resp := Refuse(pdu.LoginRequest{ISID: pdu.ISID{7}, TSIH: 8, ITT: 9, Transit: true, NSG: 3}, pdu.LoginNotFound)
	if resp.PDU != (pdu.LoginResponse{ISID: pdu.ISID{7}, TSIH: 8, ITT: 9, Status: pdu.LoginNotFound}) {
		t.Errorf("%+v", resp)
	}
}

func TestStatusOf(t *testing.T) {
	if got := statusOf(errors.New("other")); got != pdu.LoginInitiatorError {
		t.Errorf("%04x", uint16(got))
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"iqn.2026-11.io.csi-ietd:6a8e1c1e": true, "eui.02004567A425678D": true, "naa.52004567BA64678D": true, "IQN.A": true,
		"iqn." + strings.Repeat("x", 219): true, "iqn." + strings.Repeat("x", 220): false,
		"": false, "iqn.": false, "iqn": false, "xyz.a": false, "iqn.a b": false, "iqn.a\tb": false, "iqn.a,b": false,
		"iqn.a/../b": false, "iqn.a\x7f": false, "iqn.a\x00": false, "iqn.\"": false,
	} {
		if ValidName(name) != want {
			t.Errorf("%.40q: %t", name, !want)
		}
	}
}

// FuzzLogin: whoever does not know the secret gets in by no sequence of
// requests, and no answer is longer than a login PDU.
func FuzzLogin(f *testing.F) {
	f.Add([]byte("\x81" + who + "AuthMethod=CHAP\n\x00CHAP_A=5\n\x87MaxBurstLength=512"))
	f.Add([]byte("\x87" + who))
	f.Add([]byte("\x40" + who + "\n\x81AuthMethod=None"))
	f.Add([]byte("\x00" + who + "AuthMethod=CHAP\n\x00CHAP_A=7\n\x81CHAP_N=u\x00CHAP_R=0x00\x00CHAP_I=1\x00CHAP_C=0x00\n\x87"))
	f.Fuzz(func(t *testing.T, script []byte) {
		for _, creds := range [][]Credentials{nil, {{User: "u", Secret: "a secret that nobody knows", MutualUser: "m", MutualSecret: "another one"}}} {
			m := New(&fakeDoor{creds: creds}, 1)
			for line := range strings.SplitSeq(string(script), "\n") {
				if line == "" {
					continue
				}
				var h pdu.BHS
				h[1] = line[0]
				resp, done, err := m.Step(pdu.ParseLoginRequest(&h), []byte(line[1:]))
				if len(resp.Data) > maxReply || err != nil && len(resp.Data) > 0 {
					t.Fatalf("an answer of %d bytes, %v", len(resp.Data), err)
				}
				if done && (creds != nil || m.Result().Initiator == "") {
					t.Fatalf("in by %q: %+v", script, m.Result())
				}
				if strings.Contains(string(resp.Data), "secret") {
					t.Fatal("the secret is in the answer")
				}
				if err != nil || done {
					break
				}
			}
		}
	})
}

// The alias is told with the first answer, and to nobody in discovery.
func TestAlias(t *testing.T) {
	k := begin(t)
	k.door.alias = "the disk"
	if alias, _ := text.Get(k.must(sec, opn, who), "TargetAlias"); alias != "the disk" {
		t.Errorf("told %q", alias)
	}
	if _, again := text.Get(k.must(opn, ffp), "TargetAlias"); again {
		t.Error("told twice")
	}
	k = begin(t)
	k.door.alias = "the disk"
	if _, told := text.Get(k.must(sec, opn, "InitiatorName=iqn.2026-11.io.x:i", "SessionType=Discovery"), "TargetAlias"); told {
		t.Error("told in discovery")
	}
}

// A login whose answers have no room says which key had none.
func TestDroppedKey(t *testing.T) {
	k := begin(t)
	keys := []string{who}
	for i := range 120 {
		keys = append(keys, fmt.Sprintf("X%060d=", i))
	}
	_, _, err := k.say(opn, ffp, keys...)
	var dropped DroppedKey
	if !errors.As(err, &dropped) || dropped.Value != text.NotUnderstood {
		t.Errorf("%v", err)
	}
}
