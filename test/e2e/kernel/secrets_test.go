package kernel

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/csi-ietd/csi-ietd/test/e2e/lab"
)

// TestSecretsWatcher leaks secrets in every way that the watcher, which every
// other lab runs under, must catch; and shows what it lets pass.
func TestSecretsWatcher(t *testing.T) {
	l, err := lab.New(t.Context(), lab.Config{Name: t.Name()})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	g := boot(t, l, 1, lab.GuestConfig{State: 64 << 20})[0]

	const minted = "0123456789abcdef"
	const record = "/etc/iscsi/nodes/iqn.2026-11.io.csi-ietd.lab:leak/10.77.0.1,3260"
	content := []byte("node.session.auth.username = user\nnode.session.auth.password = " + minted + "\n")
	must(t, g.WriteFile(t.Context(), record, content, 0o600))
	awaitSecrets(t, "the record to be seen", func() bool { return len(l.Secrets.Minted()) == 1 })
	if err := l.CheckSecrets(t.Context()); err != nil {
		t.Fatalf("nothing has leaked yet: %v", err)
	}

	leaks := map[string]string{ // what the error must say → a script on the guest
		"/cmdline of \"/bin/true\"":            "/bin/true --password=" + minted,
		"/environ of \"PASSWORD=":              "PASSWORD=" + minted + " env -i PASSWORD=" + l.Secrets.Planted + " /bin/true",
		"was logged: " + l.Dir() + "/node-1/x": "echo 'level=info password=" + minted + "' >/run/lab/share/x.log",
		"on node-1 in the kernel's log":        "echo 'debug: " + l.Secrets.Planted + "' >/dev/kmsg",
		"on node-1 in run/left-behind":         "echo " + minted + " >/run/left-behind",
		record + "-open (mode 0644)":           "cp " + record + " " + record + "-open; chmod 644 " + record + "-open",
		"volumes/x.json (mode 0600)":           "cd /var/lib/kubelet/plugins/csi-ietd.io/volumes; umask 77; echo " + minted + " >x.json",
		record + "-planted (mode 0600)":        "umask 77; echo " + l.Secrets.Planted + " >" + record + "-planted",
		"outside: /proc/":                      "",
	}
	must(t, g.MkdirAll(t.Context(), "/var/lib/kubelet/plugins/csi-ietd.io/volumes", 0o700))
	_, err = l.Outside.Output(t.Context(), "sh", "-c", "sleep 0.02; exit 0", minted)
	must(t, err)
	awaitSecrets(t, "all leaks to be told", func() bool {
		// A program of a millisecond may be missed where the machine is busy,
		// but not again and again.
		for _, script := range leaks {
			shell(t, g.Machine, script)
		}
		told := l.CheckSecrets(t.Context())
		maps.DeleteFunc(leaks, func(what, _ string) bool { return told != nil && strings.Contains(told.Error(), what) })
		return len(leaks) == 0
	})
	for what := range leaks {
		t.Errorf("not told: %s", what)
	}
}

// awaitSecrets polls: what a watcher sees arrives soon after.
func awaitSecrets(t *testing.T, what string, arrived func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !arrived(); <-tick.C {
		if time.Now().After(deadline) {
			t.Errorf("waited 10 s for %s", what)
			return
		}
	}
}
