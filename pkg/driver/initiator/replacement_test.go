package initiator

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReplacementTimeoutOfAVolume goes before the node's own, in the record of
// its one path.
func TestReplacementTimeoutOfAVolume(t *testing.T) {
	f := newFakeHost(t)
	l := loginAt(portal(t))
	l.ReplacementTimeout = 90 * time.Second
	if _, err := f.initiator().Attach(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(f.etc, "nodes", testTarget, strings.ReplaceAll(l.Portals[0], ":", ","))
	if got := string(read(t, record)); !strings.Contains(got, "replacement_timeout = 90\n") {
		t.Errorf("the record says\n%s", got)
	}
}
