package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstall: `make install` has the program under its three names, manual pages that
// are well formed and name every option, and a unit that starts what was installed.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "make", "-C", "../../..", "install", "DESTDIR="+dir, "PREFIX=/opt/iet").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, says := range map[string]string{"csi-ietd": "Available Commands", "ietd": "--config", "ietadm": "--redirect"} {
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "opt/iet/sbin", name), "--help").CombinedOutput()
		if err != nil || !strings.Contains(string(out), says) {
			t.Errorf("%s --help: %v\n%s", name, err, out)
		}
	}
	unit, err := os.ReadFile(filepath.Join(dir, "usr/lib/systemd/system/ietd.service"))
	if err != nil || !strings.Contains(string(unit), "ExecStart=/opt/iet/sbin/ietd\n") || strings.Contains(string(unit), "@") {
		t.Errorf("%v\n%s", err, unit)
	}
	for _, page := range []string{"man8/ietd.8", "man8/ietadm.8", "man5/ietd.conf.5"} {
		path := filepath.Join(dir, "opt/iet/share/man", page)
		out, err := exec.CommandContext(t.Context(), "groff", "-t", "-man", "-ww", "-z", path).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", page, err, out)
		}
	}
}

// TestManualPages: every option is in its page.
func TestManualPages(t *testing.T) {
	for page, flags := range map[string]interface{ FlagUsages() string }{
		"ietd.8": newIetdCommand().Flags(), "ietadm.8": newIetadmCommand().Flags(),
	} {
		b, err := os.ReadFile("../../../docs/man/" + page)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(b), `\-`, "-")
		for word := range strings.FieldsSeq(flags.FlagUsages()) {
			if option, ok := strings.CutPrefix(word, "--"); ok && option != "" && !strings.Contains(text, "--"+strings.TrimRight(option, ",.")) {
				t.Errorf("%s does not have --%s", page, option)
			}
		}
	}
}
