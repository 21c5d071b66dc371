package agent

import (
	"bytes"
	"strings"
	"testing"
)

// TestTTY: the command has a terminal of its own, with both outputs on it, and
// the end of the client's input does not hang it up.
func TestTTY(t *testing.T) {
	c, _ := serve(t)
	var out bytes.Buffer
	exit, err := c.Run(t.Context(), Command{
		Args: []string{"sh", "-c", "read line; test -t 0 && tty && echo got $line >&2; exit 5"}, TTY: true,
	}, Streams{Stdin: strings.NewReader("typed\n"), Stdout: &out})
	if err != nil || exit.Code != 5 {
		t.Errorf("%v, %v", exit, err)
	}
	for _, want := range []string{"/dev/pts/", "got typed\r\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
}
