package driver

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/nacl/box"
)

const testVolumeUUID = "6f1c2a34-5b6d-4e7f-8a9b-0c1d2e3f4a5b"

func testIdentity(t *testing.T) NodeIdentity {
	t.Helper()
	pub, priv, err := box.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return NodeIdentity{NodeID: NodeID{UUID: testNodeUUID, PublicKey: *pub}, PrivateKey: *priv}
}

func testPublishContext() PublishContext {
	return PublishContext{
		Portals:    []string{"192.0.2.7:3260", "[2001:db8::7]:3260"},
		TargetName: iqnPrefix + testVolumeUUID,
		NAA:        "3123456789abcdef",
		Serial:     testVolumeUUID,
		SizeBytes:  1 << 30,
		Generation: 7,
		Credentials: Credentials{
			User: "user-7", Secret: "PLANTED-secret-one",
			MutualUser: "target-7", MutualSecret: "PLANTED-secret-two",
		},
	}
}

func TestPublishContextRoundTrip(t *testing.T) {
	id, want := testIdentity(t), testPublishContext()
	m, err := want.Seal(id.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprint(m); strings.Contains(s, "PLANTED") || strings.Contains(s, "user-7") {
		t.Errorf("credentials in clear: %s", s)
	}
	got, err := OpenPublishContext(m, id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(s, "PLANTED") {
		t.Errorf("a printed context shows its secrets: %s", s)
	}
}

func TestOpenPublishContextNormalisesPortals(t *testing.T) {
	id := testIdentity(t)
	m, err := testPublishContext().Seal(id.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	m[pcPortals] = "[::ffff:192.0.2.7]:3260,[2001:DB8:0:0::0007]:3260,192.0.2.7:3260"
	got, err := OpenPublishContext(m, id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testPublishContext().Portals, got.Portals); diff != "" {
		t.Error(diff)
	}
}

func TestOpenPublishContextRefuses(t *testing.T) {
	id := testIdentity(t)
	good, err := testPublishContext().Seal(id.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	other := testPublishContext()
	other.Generation++
	elsewhere, err := other.Seal(id.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ key, value string }{
		{pcPortals, ","}, {pcPortals, "storage.example:3260"}, {pcPortals, "192.0.2.7"},
		{pcPortals, "192.0.2.7:0"}, {pcPortals, "192.0.2.7:65536"}, {pcPortals, "0.0.0.0:3260"},
		{pcPortals, "[fe80::1%eth0]:3260"}, {pcPortals, "224.0.0.1:3260"},
		{pcPortals, "192.0.2.7:3260,"}, {pcPortals, "192.0.2.7:3260\n"},
		{pcPortals, strings.Repeat("192.0.2.7:3260,", 16) + "192.0.2.7:3260"},
		{pcTargetName, "iqn.2003-01.org.other:" + testVolumeUUID},
		{pcTargetName, iqnPrefix + "../../etc"}, {pcTargetName, iqnPrefix + strings.ToUpper(testVolumeUUID)},
		{pcTargetName, iqnPrefix + "00000000-0000-4000-8000-000000000000"},
		{pcLUN, "-1"}, {pcLUN, "16384"}, {pcLUN, "00"}, {pcLUN, "0x1"}, {pcLUN, "+1"},
		{pcNAA, "3123456789ABCDEF"}, {pcNAA, "3123456789abcde"}, {pcNAA, "3123456789abcdeg"},
		{pcSerial, "00000000-0000-4000-8000-000000000000"},
		{pcSizeBytes, "0"}, {pcSizeBytes, "513"}, {pcSizeBytes, "9223372036854775808"},
		{pcGeneration, "8"}, {pcGeneration, "18446744073709551616"},
		{pcReadOnly, "yes"}, {pcReadOnly, "TRUE"},
		{pcCredentials, "not base64"}, {pcCredentials, elsewhere[pcCredentials]},
		{pcCredentials, strings.Repeat("A", maxPublishValue+4)},
		{pcCredentials, base64.StdEncoding.EncodeToString(make([]byte, 200))},
	} {
		m := maps.Clone(good)
		m[c.key] = c.value
		if _, err := OpenPublishContext(m, id); !errors.Is(err, ErrInvalidPublishContext) {
			t.Errorf("%s = %.60q: %v", c.key, c.value, err)
		}
	}
}

func TestOpenPublishContextTruncated(t *testing.T) {
	id := testIdentity(t)
	good, err := testPublishContext().Seal(id.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	for key, v := range good {
		m := maps.Clone(good)
		delete(m, key)
		if _, err := OpenPublishContext(m, id); !errors.Is(err, ErrInvalidPublishContext) || !strings.Contains(err.Error(), key) {
			t.Errorf("without %s: %v", key, err)
		}
		if key == pcPortals || key == pcSizeBytes || key == pcLUN {
			continue // a shorter one may be a valid other
		}
		for i := range v {
			m[key] = v[:i]
			if _, err := OpenPublishContext(m, id); !errors.Is(err, ErrInvalidPublishContext) {
				t.Errorf("%s cut at %d: %v", key, i, err)
			}
		}
	}
}

func TestOpenPublishContextForAnotherNode(t *testing.T) {
	m, err := testPublishContext().Seal(testIdentity(t).NodeID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPublishContext(m, testIdentity(t)); !errors.Is(err, ErrInvalidPublishContext) {
		t.Errorf("got %v", err)
	}
}

func TestSealRefusesCredentials(t *testing.T) {
	for name, c := range map[string]Credentials{
		"none":           {},
		"short secret":   {User: "u", Secret: "elevenchars"},
		"line break":     {User: "u", Secret: "twelve-chars\nnode.startup"},
		"blank in user":  {User: "u v", Secret: "twelve-chars"},
		"plus in user":   {User: "u+v", Secret: "twelve-chars"},
		"half mutual":    {User: "u", Secret: "twelve-chars", MutualUser: "m"},
		"same secret":    {User: "u", Secret: "twelve-chars", MutualUser: "m", MutualSecret: "twelve-chars"},
		"oversized user": {User: strings.Repeat("u", maxCHAPUser+1), Secret: "twelve-chars"},
	} {
		p := testPublishContext()
		p.Credentials = c
		if _, err := p.Seal(testNodeID()); !errors.Is(err, ErrInvalidPublishContext) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
