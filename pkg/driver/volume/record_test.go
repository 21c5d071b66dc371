package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func sampleMeta() meta {
	at := time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)
	return meta{
		Version: metaVersion, Name: "pvc-1", CreatedAt: at, Parameters: map[string]string{"k": "v"},
		Capabilities: []Capability{ext4Writer}, NAA: "3123456789abcdef", Generation: 7,
		Attachments: []Attachment{{Node: node(nodeA), Generation: 7, Capability: ext4Writer, ReadOnly: true,
			Credentials: Credentials{"u", "s", "mu", "ms"}, Since: at, NodeSeen: at}},
		Closed: map[string]uint64{nodeB: 6}, Deleting: true,
	}
}

func TestMetaRoundTrip(t *testing.T) {
	want := sampleMeta()
	raw, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeMeta(blockdev.Record{ID: "x", Meta: raw})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("meta changed (-want +got):\n%s", diff)
	}
}

// TestMetaFormat pins the record's form: programs of other versions read it.
func TestMetaFormat(t *testing.T) {
	raw, err := sampleMeta().encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"version":1,"name":"pvc-1","createdAt":"2026-11-02T03:04:05Z","parameters":{"k":"v"},` +
		`"capabilities":[{"fsType":"ext4","mode":"SINGLE_NODE_WRITER"}],"naa":"3123456789abcdef","generation":7,` +
		`"attachments":[{"node":{"uuid":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.key"},` +
		`"generation":7,"capability":{"fsType":"ext4","mode":"SINGLE_NODE_WRITER"},"readOnly":true,` +
		`"credentials":{"user":"u","secret":"s","mutualUser":"mu","mutualSecret":"ms"},` +
		`"since":"2026-11-02T03:04:05Z","nodeSeen":"2026-11-02T03:04:05Z"}],` +
		`"closed":{"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb":6},"deleting":true}`
	if diff := cmp.Diff(want, string(raw)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDecodeMetaRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ raw, want string }{
		"nothing":      {"", "corrupt"},
		"no object":    {"[]", "corrupt"},
		"truncated":    {`{"version":1,"na`, "corrupt"},
		"bad naa":      {`{"version":1,"name":"a","naa":"zz"}`, "corrupt"},
		"no version":   {`{"name":"a","naa":"30"}`, "version 0"},
		"from tomorow": {`{"version":2,"name":"a","naa":"30"}`, "version 2"},
	} {
		_, err := decodeMeta(blockdev.Record{ID: "the-id", Meta: json.RawMessage(tt.raw)})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "the-id") {
			t.Errorf("%s: %v, want %q and the id", name, err, tt.want)
		}
		if tt.want == "corrupt" && !errors.Is(err, blockdev.ErrCorrupt) {
			t.Errorf("%s: %v is not ErrCorrupt", name, err)
		}
	}
}

func TestGenerationsNeverRepeat(t *testing.T) {
	var m meta
	seen := map[uint64]bool{}
	for i := range 2 * maxClosed {
		uuid := fmt.Sprintf("%032x", i%(maxClosed+10))
		m.open(Attachment{Node: node(uuid)})
		g := m.Attachments[0].Generation
		if seen[g] {
			t.Fatalf("generation %d opened twice", g)
		}
		seen[g] = true
		m.close(map[string]bool{uuid: true})
		if len(m.Attachments) != 0 || m.Closed[uuid] != g {
			t.Fatalf("after close: %d attachments, closed %d, want %d", len(m.Attachments), m.Closed[uuid], g)
		}
	}
	if len(m.Closed) != maxClosed {
		t.Errorf("%d closed generations remembered, want %d", len(m.Closed), maxClosed)
	}
	for node, g := range m.Closed {
		if g <= maxClosed {
			t.Errorf("node %s's generation %d outlived newer ones", node, g)
		}
	}
}

func TestCloneIsDeep(t *testing.T) {
	m := sampleMeta()
	c := m.clone()
	c.close(map[string]bool{nodeA: true})
	if diff := cmp.Diff(sampleMeta(), m); diff != "" {
		t.Errorf("closing a clone changed the original:\n%s", diff)
	}
}

func TestCredentials(t *testing.T) {
	a, b := mintCredentials(), mintCredentials()
	if len(a.Secret) != 32 || len(a.MutualSecret) != 32 || a.Secret == a.MutualSecret || a.Secret == b.Secret || a.User == b.User {
		t.Error("secrets are too short or repeat")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, Attachment{Credentials: a}); strings.Contains(s, a.Secret) || strings.Contains(s, a.MutualSecret) {
			t.Errorf("%s prints a secret", verb)
		}
	}
}
