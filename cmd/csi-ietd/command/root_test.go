package command

import (
	"bytes"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	tests := []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"csi-ietd", "--version"}, 0, ""},
		{[]string{"csi-ietd", "--help"}, 0, ""},
		{[]string{"csi-ietd", "ietd", "-h"}, 0, ""},
		{[]string{"csi-ietd", "iedt"}, 1, `unknown command "iedt"`},
		{[]string{"csi-ietd", "--pool"}, 1, "unknown flag: --pool"},
		{[]string{"csi-ietd", "ietd", "-f", "-p", "70000"}, 1, "70000"},
		{[]string{"/usr/sbin/ietd", "-f", "-p", "70000"}, 1, "ietd: "},
		{[]string{"ietadm", "-o", "dance"}, 255, "ietadm: --op"},
		{[]string{"csi-ietd", "ietadm", "-o", "dance"}, 255, "--op"},
	}
	for _, tt := range tests {
		var stderr bytes.Buffer
		if got := Run(t.Context(), tt.args, &stderr); got != tt.status || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%v: status %d, want %d; stderr %q, want %q", tt.args, got, tt.status, &stderr, tt.says)
		}
	}
}
