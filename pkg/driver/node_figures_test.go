package driver

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestNodeFigures counts what is staged to its end, and sessions to csi-ietd
// alone.
func TestNodeFigures(t *testing.T) {
	dir := t.TempDir()
	f := NodeFigures{stages: filepath.Join(dir, "volumes"), sys: filepath.Join(dir, "sys")}
	if _, err := f.Staged(); err == nil {
		t.Error("a directory that is not there holds stages")
	}
	if got, err := f.Sessions(); err != nil || len(got) != 0 {
		t.Errorf("without the kernel's module: %v, %v", got, err)
	}
	put(t, filepath.Join(f.stages, "a.json"), `{"staged":true}`)
	put(t, filepath.Join(f.stages, "b.json"), `{"staged":true,"targets":[{"path":"/p"}]}`)
	put(t, filepath.Join(f.stages, "begun.json"), `{"volumeID":"x"}`)
	put(t, filepath.Join(f.stages, "torn.json"), `{"staged":tr`)
	put(t, filepath.Join(f.stages, ".csi-ietd-1"), `{"staged":true}`)
	if got, err := f.Staged(); err != nil || got != 2 {
		t.Errorf("staged: %d, %v; want 2", got, err)
	}
	for session, is := range map[string][2]string{
		"session1": {iqnPrefix + "a", "LOGGED_IN"},
		"session2": {iqnPrefix + "b", "LOGGED_IN"},
		"session3": {iqnPrefix + "c", "FAILED"},
		"session4": {"iqn.2003-01.org.linux-iscsi:x", "LOGGED_IN"},
	} {
		put(t, filepath.Join(f.sys, "class/iscsi_session", session, "targetname"), is[0]+"\n")
		put(t, filepath.Join(f.sys, "class/iscsi_session", session, "state"), is[1]+"\n")
	}
	got, err := f.Sessions()
	if diff := cmp.Diff(map[string]int{"LOGGED_IN": 2, "FAILED": 1}, got); diff != "" || err != nil {
		t.Errorf("sessions (-want +got):\n%s%v", diff, err)
	}
}
