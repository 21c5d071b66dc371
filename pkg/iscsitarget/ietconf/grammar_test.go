package ietconf

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestGrammar: what a text says, in the form in which Format writes it.
func TestGrammar(t *testing.T) {
	const head = "Target iqn.x\n"
	tests := []struct{ name, text, want string }{
		{"last line without newline", head + "Wthreads 9", head + "\tWthreads 9\n"},
		{"\\r\\n", "Target iqn.x\r\nWthreads 9\r\n", head + "\tWthreads 9\n"},
		{"\\r alone at the end", "Target iqn.x\nWthreads 9\r", head + "\tWthreads 9\n"},
		{"tabs and other blanks", "\t\vTarget\f\tiqn.x \t\nWthreads\t\t9\v", head + "\tWthreads 9\n"},
		{"no-break space is no blank", "Target iqn.\u00a0x\n", "Target iqn.\u00a0x\n"},
		{"BOM", "\ufeffTarget iqn.x\n", head},
		{"BOM before a comment", "\ufeff# x\nTarget iqn.x\n", head},
		{"case of directives", "TARGET iqn.X\nwTHREADS 9", "Target iqn.X\n\tWthreads 9\n"},
		{"hexadecimal", head + "Wthreads 0x1F", head + "\tWthreads 31\n"},
		{"octal", head + "Wthreads 017", head + "\tWthreads 15\n"},
		{"continued", "Target \\\niqn.x\n", head},
		{"continued with \\r\\n", "Target \\\r\niqn.x\r\n", head},
		{"continued within a word", "Tar\\\nget iqn.x\n", head},
		{"continued twice", "Target\\\n\\\n iqn.x\n", head},
		{"continued with \\r at the end", "Target iqn.x\\\r", head},
		{"continued by the end", "Target iqn.x\\", head},
		{"continued by a line that looks like a comment", "IncomingUser joe \\\n#secret\n", "IncomingUser joe #secret\n"},
		{"a backslash before a blank continues nothing", "IncomingUser joe secret\\ \nTarget iqn.x\n", "IncomingUser joe secret\\ \n\n" + head},
		{"two backslashes continue", "IncomingUser joe secret\\\\\n2\n", "IncomingUser joe secret\\2\n"},
		{"comments", "# x\n  #x\n\t# x \\\n#\nTarget iqn.x\n#", head},
		{"a comment is the first word only", head + "Alias a # b\n", head + "\tAlias a # b\n"},
		{"NUL in a comment", "# \x00\nTarget iqn.x\n", head},
		{"a comment of 1 MiB", "#" + strings.Repeat("x", 1<<20) + "\nTarget iqn.x\n", head},
		{"a line of 4095 bytes", "Target" + strings.Repeat(" ", maxLine-len("Targetiqn.x")) + "iqn.x\n", head},
		{"the last of each counts", head + "Wthreads 9\nWthreads 10\nAlias a\nAlias b\n", head + "\tAlias b\n\tWthreads 10\n"},
		{"iSNSServer: the last counts", "iSNSServer a\niSNSServer b\niSNSAccessControl Yes\niSNSAccessControl No\n", "iSNSServer b\n"},
		{"accounts are the stanza's", "IncomingUser a 1\nTarget x\nIncomingUser a 2\nTarget y\nIncomingUser a 3\n",
			"IncomingUser a 1\n\nTarget x\n\tIncomingUser a 2\n\nTarget y\n\tIncomingUser a 3\n"},
		{"LUNs are the stanza's", "Target x\nLun 0 Type=nullio\nTarget y\nLun 0 Type=nullio\n",
			"Target x\n\tLun 0 Type=nullio,IOMode=wt\n\nTarget y\n\tLun 0 Type=nullio,IOMode=wt\n"},
	}
	for _, tt := range tests {
		c, err := Parse("f", strings.NewReader(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var b strings.Builder
		if err := Format(&b, c); err != nil || b.String() != tt.want {
			t.Errorf("%s:\n got %q, %v\nwant %q", tt.name, &b, err, tt.want)
		}
	}
}

// TestGrammarErrors: text that is none, and passwords that lost their line.
func TestGrammarErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"NUL", "Target iqn.x\x00", "f:1: Target: has a control character in the words after it, want plain text"},
		{"NUL in a directive", "Tar\x00get iqn.x", `f:1: "Tar\x00get": no such directive; see ietd.conf(5)`},
		{"NUL in a password", "IncomingUser joe planted\x00", "f:1: IncomingUser: has a control character in the words after it, want plain text"},
		{"UTF-16", "\xff\xfeT\x00a\x00", `f:1: "\xff\xfeT\x00a\x00": no such directive; see ietd.conf(5)`},
		{"escape", "Target iqn.\x1b[2J", "f:1: Target: has a control character in the words after it, want plain text"},
		{"next line", "Target a\u0085Target b", "f:1: Target: has a control character in the words after it, want plain text"},
		{"a line of 4096 bytes", "\nTarget " + strings.Repeat("x", 4096-7), "f:2: a line: has 4096 bytes, at most 4095 are allowed: end it with a backslash and go on in the next one"},
		{"a line of 1 MiB", strings.Repeat("x", 1<<20), "f:1: a line: has 1048576 bytes, at most 4095 are allowed: end it with a backslash and go on in the next one"},
		{"a long line that is continued", "Target \\\n" + strings.Repeat("x", 5000) + "\\\nplanted", "f:1: a line: has 5001 bytes, at most 4095 are allowed: end it with a backslash and go on in the next one"},
		{"a password without its backslash", "IncomingUser joe\nplanted", "f:1: IncomingUser: has 1 words after it, want a user and a password\nf:2: a word after an account: no such directive; see ietd.conf(5)"},
		{"a password after a backslash and a blank", "OutgoingUser joe \\ \n\n  planted", "f:3: a word after an account: no such directive; see ietd.conf(5)"},
		{"a comma in a password", "IncomingUser joe planted,x", "f:1: IncomingUser: a password with a blank, a comma or a control character, want one without"},
		{"a long password", "OutgoingUser joe " + strings.Repeat("planted", 37), "f:1: OutgoingUser: a password of 259 bytes, at most 255 are allowed"},
		{"a long host", "iSNSServer " + strings.Repeat("x", 256), "f:1: iSNSServer: a name of 256 bytes, want a host name or address of at most 255 without blanks"},
		{"errors after a wrong target", "Target a b\nLun 0 Path=/a", "f:1: Target: has 2 words after it, want an iSCSI name"},
		{"number of a LUN", "Target a\nLun 1_0 Path=/a", `f:2: Lun: "1_0", want a number from 0 to 16383`},
	}
	for _, tt := range tests {
		_, err := Parse("f", strings.NewReader(tt.text))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %s", tt.name, err, tt.want)
		}
	}
}

// TestLargest: a file of 16 MiB is read, whatever it is full of, and one of a
// byte more is not.
func TestLargest(t *testing.T) {
	fill := func(line string) string {
		return strings.Repeat(line, maxFile/len(line)+1)[:maxFile]
	}
	// The race detector makes short lines slow.
	blanks := strings.Repeat(" ", 256-11)
	for name, text := range map[string]string{
		"comments":     fill("# x" + blanks + "\n"),
		"blank lines":  fill(blanks + "\r\n"),
		"continuation": fill(blanks + "\\\n"),
		"warnings":     "Target iqn.x\n\n" + fill("Wthreads 0" + blanks + "\n")[:maxFile-14],
	} {
		c, err := Parse("f", strings.NewReader(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := map[string]int{"warnings": maxWarnings}[name]; len(c.Warnings) != want {
			t.Errorf("%s: %d warnings, want %d", name, len(c.Warnings), want)
		}
	}
	if _, err := Parse("f", strings.NewReader(fill("\n")+"\n")); err == nil || !strings.Contains(err.Error(), "longer than 16777216 bytes") {
		t.Error(err)
	}
}

// TestMany: names are looked up, not searched for.
func TestMany(t *testing.T) {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, "Target iqn.%d\n", i)
	}
	for i := range maxLUN + 1 {
		fmt.Fprintf(&b, "Lun %d Type=nullio\n", i)
	}
	for i := range 50_000 {
		fmt.Fprintf(&b, "IncomingUser u%d p\n", i)
	}
	c, err := Parse("f", strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	last := c.Targets[len(c.Targets)-1]
	if len(c.Targets) != 100_000 || len(last.LUNs) != maxLUN+1 || len(last.Incoming) != 50_000 {
		t.Errorf("%d targets, %d LUNs, %d users", len(c.Targets), len(last.LUNs), len(last.Incoming))
	}
}

func TestParametersAreNotShared(t *testing.T) {
	Parameters()[0] = "x"
	if slices.Contains(Parameters(), "x") {
		t.Error("the table was changed")
	}
}
