package lab

import (
	"encoding/base64"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/test/e2e/agent"
)

const testSecret = "aaaabbbbccccdddd"

func TestSecretsIn(t *testing.T) {
	for name, tt := range map[string]struct {
		data string
		want []string
	}{
		"open-iscsi, both ways": {
			"# BEGIN\nnode.session.auth.password = one-one-one-one\nnode.session.auth.password_in = two-two-two-two\n",
			[]string{"one-one-one-one", "two-two-two-two"}},
		"open-iscsi without CHAP": {"node.session.auth.authmethod = None\nnode.session.auth.chap_algs = MD5\n", nil},
		"open-iscsi's discovery":  {"discovery.sendtargets.auth.password = three-three-three\n", []string{"three-three-three"}},
		"a volume's record": {
			`{"meta":{"attachments":[{"credentials":{"user":"node-123456789","secret":"one-one-one-one","mutualSecret":"two-two-two-two"}}]}}`,
			[]string{"one-one-one-one", "two-two-two-two"}},
		"a node's identity": {`{"uuid":"not-a-secret-at-all","privateKey":"three-three-three"}`, []string{"three-three-three"}},
		"half a record":     {"node.session.auth.password = one", nil},
		"no record":         {"\x00\xff", nil},
	} {
		got := secretsIn([]byte(tt.data))
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestLeaks: a secret in a record that is its owner's alone is in its place;
// anywhere else it is a leak.
func TestLeaks(t *testing.T) {
	const record = "/tmp/lab/pool/volumes/1234/record.json"
	seen := func(kind, path string, mode fs.FileMode, data string) sighting {
		return sighting{"node-1", agent.Observation{Kind: kind, Path: path, Mode: mode, Data: []byte(data)}}
	}
	for name, tt := range map[string]struct {
		seen sighting
		leak bool
	}{
		"record":                  {seen(agent.File, record, 0o600, `{"secret":"`+testSecret+`"}`), false},
		"record being replaced":   {seen(agent.File, record+".tmp", 0o600, testSecret), false},
		"record in the trash":     {seen(agent.File, "/tmp/lab/pool/trash/1234/record.json", 0o600, testSecret), false},
		"record for the group":    {seen(agent.File, record, 0o640, testSecret), true},
		"mark beside it":          {seen(agent.File, "/tmp/lab/pool/volumes/1234/volatile.json", 0o600, testSecret), true},
		"iface":                   {seen(agent.File, "/etc/iscsi/ifaces/csi-ietd", 0o600, testSecret), true},
		"half-made node record":   {seen(agent.File, "/etc/iscsi/.record-1", 0o600, testSecret), false},
		"arguments":               {seen(agent.Cmdline, "/proc/1/cmdline", 0, "iscsiadm\x00"+testSecret+"\x00"), true},
		"environment":             {seen(agent.Environ, "/proc/1/environ", 0, "A=b\x00P="+testSecret+"\x00"), true},
		"arguments in base64":     {seen(agent.Cmdline, "/proc/1/cmdline", 0, base64.StdEncoding.EncodeToString([]byte(testSecret))), true},
		"arguments without":       {seen(agent.Cmdline, "/proc/1/cmdline", 0, "iscsiadm\x00--login\x00"), false},
		"record with the planted": {seen(agent.File, record, 0o600, "planted"), true},
	} {
		s := &Secrets{Planted: "planted", seen: []sighting{tt.seen}}
		if errs := s.leaks([]string{testSecret}); (len(errs) > 0) != tt.leak {
			t.Errorf("%s: %v, want a leak: %v", name, errs, tt.leak)
		}
	}
}

func TestLeaksInContexts(t *testing.T) {
	s := &Secrets{Planted: "planted"}
	s.saw(map[string]string{"targetName": "iqn.a", "credentials": "sealed"})
	if errs := s.leaks([]string{testSecret}); len(errs) != 0 {
		t.Errorf("sealed: %v", errs)
	}
	if errs := s.leaks(nil); len(errs) != 1 || !strings.Contains(errs[0].Error(), "no record") {
		t.Errorf("a blind watcher: %v", errs)
	}
	s.saw(map[string]string{"targetName": "iqn.b", "credentials": testSecret})
	if errs := s.leaks([]string{testSecret}); len(errs) != 1 || !strings.Contains(errs[0].Error(), "iqn.b") {
		t.Errorf("in clear: %v", errs)
	}
}
