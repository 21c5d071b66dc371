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
		{[]string{"--version"}, 0, ""},
		{[]string{"--help"}, 0, ""},
		{[]string{"ietd", "-h"}, 0, ""},
		{[]string{"iedt"}, 1, `unknown command "iedt"`},
		{[]string{"--pool"}, 1, "unknown flag: --pool"},
		{[]string{"ietd", "-f", "-p", "70000"}, 1, "70000"},
	}
	for _, tt := range tests {
		var stderr bytes.Buffer
		if got := Run(t.Context(), tt.args, &stderr); got != tt.status || !strings.Contains(stderr.String(), tt.says) {
			t.Errorf("%v: status %d, want %d; stderr %q, want %q", tt.args, got, tt.status, &stderr, tt.says)
		}
	}
}
