package initiator

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTargets(t *testing.T) {
	const prefix = "iqn.2026-11.io.csi-ietd:"
	f := newFakeHost(t)
	ours := strings.ReplaceAll(string(read(t, "testdata/node-2.1.8.one-way.golden")), "iface.iscsi_ifacename = default", "iface.iscsi_ifacename = "+ifaceName)
	theirs := strings.ReplaceAll(ours, "iface.iscsi_ifacename = "+ifaceName, "iface.iscsi_ifacename = default")
	if ours == theirs {
		t.Fatal("the record names no iface")
	}
	record := func(name, content string, path ...string) {
		t.Helper()
		file := filepath.Join(append([]string{f.etc, "nodes", name}, path...)...)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	record(prefix+"record", ours, "192.0.2.7,3260")
	record(prefix+"record-with-tpgt", ours, "192.0.2.7,3260,1", ifaceName)
	record(prefix+"cut", ours[:100], "192.0.2.7,3260")
	record(prefix+"nothing", "", "192.0.2.7,3260")
	record(prefix+"theirs", theirs, "192.0.2.7,3260,1", "default")
	record("iqn.2004-10.org.other:disk", ours, "192.0.2.7,3260")
	record(prefix+"ours-and-theirs-live", ours, "192.0.2.7,3260")
	f.mkdir("proc/4711/root/etc/iscsi/nodes", prefix+"empty")
	f.addSession(prefix+"session", testInitiator, "x", loggedIn)
	f.addSession(prefix+"lost", testInitiator, "x", recovers)
	f.addSession(prefix+"node-of-another-name", "iqn.2026-11.io.csi-ietd:node.ff", "x", loggedIn)
	f.addSession(prefix+"ours-and-theirs-live", "iqn.1993-08.org.debian:01:x", "x", loggedIn)
	f.addSession("iqn.2004-10.org.other:disk", testInitiator, "x", loggedIn)

	var want []string
	for _, s := range []string{"cut", "empty", "lost", "nothing", "record", "record-with-tpgt", "session"} {
		want = append(want, prefix+s)
	}
	got, err := f.initiator().Targets(t.Context(), prefix)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}

	// Without iscsid nobody knows where the records are.
	f.remove("proc/4711")
	got, err = f.initiator().Targets(t.Context(), prefix)
	if !errors.Is(err, ErrHost) || !slices.Equal(got, []string{prefix + "lost", prefix + "session"}) {
		t.Errorf("got %q, %v", got, err)
	}
}
