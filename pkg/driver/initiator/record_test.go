package initiator

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testLogin() Login {
	return Login{
		Volume: Volume{
			TargetName: testTarget, NAA: "3123456789abcdef",
			Username: "u1+0123456789abcdef0123456789abcdef", SizeBytes: 1 << 30,
		},
		Portals: []string{"192.0.2.7:3260"}, Secret: "PLANTED-secret-one",
	}
}

const (
	testTarget    = "iqn.2026-11.io.csi-ietd:6f1c2a34-5b6d-4e7f-8a9b-0c1d2e3f4a5b"
	testInitiator = "iqn.2026-11.io.csi-ietd:node.0123456789abcdef0123456789abcdef"
)

// The host's own settings, automatic start and CHAP names among them, must not
// survive in our record.
func TestCompleteRecordGolden(t *testing.T) {
	i := New(Config{InitiatorName: testInitiator})
	oneWay, mutual := testLogin(), testLogin()
	mutual.MutualUser, mutual.MutualSecret = "t1", "PLANTED-secret-two"
	for name, c := range map[string]struct {
		l           Login
		replacement time.Duration
	}{
		"node-2.1.8.one-way": {oneWay, 600 * time.Second},
		"node-2.1.8.mutual":  {mutual, multipathReplacement},
	} {
		got, err := completeRecord(read(t, "testdata/node-2.1.8"), i.recordSettings(c.l, c.replacement))
		if err != nil {
			t.Fatal(err)
		}
		golden := "testdata/" + name + ".golden"
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(string(read(t, golden)), string(got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		again, err := completeRecord(got, i.recordSettings(c.l, c.replacement))
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s: completing twice changes the record: %v", name, err)
		}
	}
}

// A release without the key would not read a record that has it.
func TestCompleteRecordOfAnOldRelease(t *testing.T) {
	old := strings.ReplaceAll(string(read(t, "testdata/node-2.1.8")), "node.session.auth.chap_algs = MD5\n", "")
	got, err := completeRecord([]byte(old), New(Config{InitiatorName: testInitiator}).recordSettings(testLogin(), time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(got, []byte("chap_algs")) {
		t.Error("chap_algs was added")
	}
}

func TestCompleteRecordRefuses(t *testing.T) {
	good := read(t, "testdata/node-2.1.8")
	for i := 0; i < len(good)-len(recordEnd)-1; i += 7 {
		if _, err := completeRecord(good[:i], nil); err == nil {
			t.Fatalf("a record cut at %d was taken", i)
		}
	}
	for name, record := range map[string][]byte{
		"empty": nil, "another file": []byte("node.startup = manual\n" + recordEnd),
		"huge": append([]byte(recordBegin), bytes.Repeat([]byte("x\n"), maxRecord)...),
	} {
		if _, err := completeRecord(record, nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := completeRecord(good, []setting{{key: "a", value: "b\nnode.startup = automatic"}}); err == nil {
		t.Error("a value with a line break was taken")
	}
}

func TestApplySettingDropsDoubles(t *testing.T) {
	for _, s := range []setting{{key: "k", value: "new"}, {key: "k", value: "new", known: true}} {
		got := applySetting([]string{"a = 1", "k = old", "k=older", "kk = 2"}, s)
		if diff := cmp.Diff([]string{"a = 1", "k = new", "kk = 2"}, got); diff != "" {
			t.Error(diff)
		}
	}
}
