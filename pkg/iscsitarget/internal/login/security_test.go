package login

import (
	"fmt"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/text"
	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/iscsitest"
)

var alice = Credentials{User: "alice", Secret: "alice's secret", MutualUser: "target", MutualSecret: "target's secret"}

// keys are pairs as say takes them.
func keys(pairs []text.Pair) (out []string) {
	for _, p := range pairs {
		out = append(out, p.Key+"="+p.Value)
	}
	return out
}

// challenge goes as far as the target's challenge.
func (k *talk) challenge(algorithms string) []text.Pair {
	k.Helper()
	if v, _ := text.Get(k.must(sec, 0, who, "AuthMethod=None,CHAP"), "AuthMethod"); v != "CHAP" {
		k.Fatalf("AuthMethod=%s", v)
	}
	return k.must(sec, 0, "CHAP_A="+algorithms)
}

func (k *talk) proof(x iscsitest.CHAP, offer []text.Pair) []string {
	k.Helper()
	pairs, _, err := x.Prove(offer)
	if err != nil {
		k.Fatal(err)
	}
	return keys(pairs)
}

func TestCHAP(t *testing.T) {
	for algorithm, offered := range map[string]string{"5": "5", "6": "6", "7": "7", "8": "8", "7,5": "7,5"} {
		for _, mutual := range []bool{false, true} {
			for _, base64 := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s,mutual=%t,base64=%t", algorithm, mutual, base64), func(t *testing.T) {
					k := begin(t, alice)
					offer := k.challenge("99," + offered)
					if a, _ := text.Get(offer, "CHAP_A"); a != algorithm[:1] {
						t.Fatalf("CHAP_A=%s", a)
					}
					x := iscsitest.CHAP{User: "alice", Secret: alice.Secret, Base64: base64, Mutual: mutual, MutualUser: "target", MutualSecret: alice.MutualSecret}
					answer := k.must(sec, opn, k.proof(x, offer)...)
					if _, proved := text.Get(answer, "CHAP_R"); proved != mutual {
						t.Errorf("answer %v", answer)
					}
					k.must(opn, ffp)
					if r := k.Result(); r.Proven != 0 || r.Nonce != "" {
						t.Errorf("%+v", r)
					}
				})
			}
		}
	}
}

// Challenges are never the same.
func TestChallengesDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		c, _ := text.Get(begin(t, alice).challenge("5"), "CHAP_C")
		if seen[c] || len(c) != 2+32 {
			t.Fatalf("CHAP_C=%s", c)
		}
		seen[c] = true
	}
}

// Nobody gets past, or around, the security stage without the proof.
func TestBypass(t *testing.T) {
	const fail = pdu.LoginAuthFailure
	none := func(*talk) {}
	asked := func(k *talk) { k.must(sec, 0, who) }
	challenged := func(k *talk) { k.challenge("5") }
	for _, tt := range []struct {
		name     string
		before   func(*talk)
		csg, nsg uint8
		keys     []string
		want     pdu.LoginStatus
	}{
		{"operational at once", none, opn, ffp, []string{who}, fail},
		{"operational without T", none, opn, 0, []string{who}, fail},
		{"operational after asking", asked, opn, ffp, nil, pdu.LoginInvalidDuring},
		{"operational after the challenge", challenged, opn, ffp, nil, pdu.LoginInvalidDuring},
		{"AuthMethod None", asked, sec, opn, []string{"AuthMethod=None"}, fail},
		{"AuthMethod None first", none, sec, ffp, []string{who, "AuthMethod=None"}, fail},
		{"unknown methods", asked, sec, opn, []string{"AuthMethod=KRB5,SRP"}, fail},
		{"proof before the challenge", asked, sec, opn, []string{"CHAP_N=alice", "CHAP_R=0x00"}, fail},
		{"name alone", challenged, sec, opn, []string{"CHAP_N=alice"}, fail},
		{"response alone", challenged, sec, opn, []string{"CHAP_R=0x00"}, fail},
		{"empty response", challenged, sec, opn, []string{"CHAP_N=alice", "CHAP_R="}, fail},
		{"empty hex", challenged, sec, opn, []string{"CHAP_N=alice", "CHAP_R=0x"}, fail},
		{"wrong response", challenged, sec, opn, []string{"CHAP_N=alice", "CHAP_R=0x" + strings.Repeat("00", 16)}, fail},
		{"empty user", challenged, sec, opn, []string{"CHAP_N=", "CHAP_R=0x00"}, fail},
		{"challenge twice", challenged, sec, 0, []string{"CHAP_A=5"}, fail},
		{"unknown algorithm", asked, sec, 0, []string{"CHAP_A=4,9"}, fail},
		{"no algorithm", asked, sec, 0, []string{"CHAP_A="}, fail},
		{"AuthMethod None after the challenge", challenged, sec, ffp, []string{"AuthMethod=None"}, fail},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := begin(t, alice)
			tt.before(k)
			k.refused(tt.want, tt.csg, tt.nsg, tt.keys...)
		})
	}
	for name, before := range map[string]func(*talk){"nothing": none, "asked": asked, "challenged": challenged} {
		for _, nsg := range []uint8{opn, ffp} {
			k := begin(t, alice)
			before(k)
			for range 5 {
				if resp, done, err := k.say(sec, nsg, who); err != nil || done || resp.PDU.Transit {
					t.Fatalf("%s: T granted: %+v, %v", name, resp, err)
				}
			}
		}
	}
}

func TestProofTwice(t *testing.T) {
	k := begin(t, alice)
	offer := k.challenge("5")
	proof := k.proof(iscsitest.CHAP{User: "alice", Secret: alice.Secret}, offer)
	k.must(sec, 0, proof...)
	k.refused(pdu.LoginAuthFailure, sec, opn, proof...)
}

func TestCHAPOutsideOfSecurity(t *testing.T) {
	k := begin(t)
	k.must(opn, 0, who)
	k.refused(pdu.LoginAuthFailure, opn, ffp, "CHAP_A=5")
	k = begin(t)
	k.must(opn, 0, who)
	k.refused(pdu.LoginInvalidDuring, opn, ffp, "AuthMethod=None")
	begin(t).refused(pdu.LoginAuthFailure, sec, 0, who, "AuthMethod=CHAP")
	k = begin(t)
	k.must(sec, 0, who)
	k.refused(pdu.LoginAuthFailure, sec, 0, "CHAP_A=5")
}

func TestWrongSecretsAndUsers(t *testing.T) {
	for name, x := range map[string]iscsitest.CHAP{
		"wrong secret":       {User: "alice", Secret: "wrong"},
		"no secret":          {User: "alice"},
		"wrong user":         {User: "bob", Secret: alice.Secret},
		"user in capitals":   {User: "ALICE", Secret: alice.Secret},
		"the mutual secret":  {User: "alice", Secret: alice.MutualSecret},
		"the target's user":  {User: "target", Secret: alice.MutualSecret},
		"a nonce not wanted": {User: "alice+1", Secret: alice.Secret},
	} {
		t.Run(name, func(t *testing.T) {
			k := begin(t, alice)
			k.refused(pdu.LoginAuthFailure, sec, opn, k.proof(x, k.challenge("7"))...)
		})
	}
}

// Credentials without a secret let nobody in, least of all with an empty one.
func TestEmptySecret(t *testing.T) {
	k := begin(t, Credentials{User: "alice"})
	k.refused(pdu.LoginAuthFailure, sec, opn, k.proof(iscsitest.CHAP{User: "alice"}, k.challenge("5"))...)
}

func TestSecondCredentials(t *testing.T) {
	k := begin(t, alice, Credentials{User: "bob", Secret: "bob's secret"})
	k.must(sec, ffp, k.proof(iscsitest.CHAP{User: "bob", Secret: "bob's secret"}, k.challenge("5"))...)
	if k.Result().Proven != 1 {
		t.Errorf("%+v", k.Result())
	}
}

// Two credentials of one user: each of the secrets gets in.
func TestOneUserTwice(t *testing.T) {
	for i, secret := range []string{"one", "two"} {
		k := begin(t, Credentials{User: "u", Secret: "one"}, Credentials{User: "u", Secret: "two"})
		k.must(sec, ffp, k.proof(iscsitest.CHAP{User: "u", Secret: secret}, k.challenge("5"))...)
		if k.Result().Proven != i {
			t.Errorf("%+v", k.Result())
		}
	}
}

func TestMutualRefused(t *testing.T) {
	same := alice
	same.MutualSecret = same.Secret
	for _, tt := range []struct {
		name  string
		creds Credentials
		// add is what follows a good proof; CHALLENGE stands for our own.
		add []string
	}{
		{"no mutual secret", Credentials{User: "alice", Secret: alice.Secret}, []string{"CHAP_I=1", "CHAP_C=0x0102"}},
		{"one secret for both", same, []string{"CHAP_I=1", "CHAP_C=0x0102"}},
		{"reflected", alice, []string{"CHAP_I=1", "CHAP_C=CHALLENGE"}},
		{"no CHAP_I", alice, []string{"CHAP_C=0x0102"}},
		{"CHAP_I too large", alice, []string{"CHAP_I=256", "CHAP_C=0x0102"}},
		{"CHAP_I no number", alice, []string{"CHAP_I=x", "CHAP_C=0x0102"}},
		{"CHAP_I negative", alice, []string{"CHAP_I=-1", "CHAP_C=0x0102"}},
		{"empty challenge", alice, []string{"CHAP_I=1", "CHAP_C=0x"}},
		{"no hex", alice, []string{"CHAP_I=1", "CHAP_C=0xzz"}},
		{"no prefix", alice, []string{"CHAP_I=1", "CHAP_C=0102"}},
		{"1025 bytes", alice, []string{"CHAP_I=1", "CHAP_C=0x" + strings.Repeat("ab", 1025)}},
		{"1026 bytes in base64", alice, []string{"CHAP_I=1", "CHAP_C=0b" + strings.Repeat("QUJD", 342)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := begin(t, tt.creds)
			offer := k.challenge("5")
			own, _ := text.Get(offer, "CHAP_C")
			proof := k.proof(iscsitest.CHAP{User: "alice", Secret: alice.Secret}, offer)
			for _, a := range tt.add {
				proof = append(proof, strings.Replace(a, "CHALLENGE", own, 1))
			}
			k.refused(pdu.LoginAuthFailure, sec, opn, proof...)
		})
	}
}

// The stage nonce: the user, "+", 1 to 64 letters and digits.
func TestNonce(t *testing.T) {
	creds := Credentials{User: "alice", Secret: "s", StageNonce: true}
	for name, want := range map[string]string{
		"alice+1": "1", "alice+aZ09": "aZ09", "alice+" + strings.Repeat("n", 64): strings.Repeat("n", 64),
		"alice+" + strings.Repeat("n", 65): "", "alice+": "", "alice": "", "alice+a+b": "", "alice+a b": "", "alice+ä": "",
		"alice+-": "", "+1": "", "bob+1": "", "alice1": "", "Alice+1": "",
	} {
		t.Run(name, func(t *testing.T) {
			k := begin(t, creds)
			proof := k.proof(iscsitest.CHAP{User: name, Secret: "s"}, k.challenge("5"))
			if want == "" {
				k.refused(pdu.LoginAuthFailure, sec, ffp, proof...)
				return
			}
			k.must(sec, ffp, proof...)
			if r := k.Result(); r.Nonce != want || r.Proven != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// Discovery asks for its credentials too.
func TestDiscoveryCHAP(t *testing.T) {
	const asker = "InitiatorName=iqn.i.x\x00SessionType=Discovery"
	begin(t, alice).refused(pdu.LoginAuthFailure, opn, ffp, asker)
	begin(t, alice).refused(pdu.LoginAuthFailure, sec, opn, asker, "AuthMethod=None")
	k := begin(t, alice)
	k.must(sec, 0, asker, "AuthMethod=CHAP")
	k.must(sec, ffp, k.proof(iscsitest.CHAP{User: "alice", Secret: alice.Secret}, k.must(sec, 0, "CHAP_A=5"))...)
}

// No error tells a secret.
func TestErrorsAreWithoutSecrets(t *testing.T) {
	for _, x := range []iscsitest.CHAP{{User: "alice", Secret: "wrong"}, {User: "bob", Secret: "wrong"}} {
		k := begin(t, alice)
		_, _, err := k.say(sec, opn, k.proof(x, k.challenge("5"))...)
		if err == nil || strings.Contains(err.Error(), alice.Secret) {
			t.Error(err)
		}
	}
}
