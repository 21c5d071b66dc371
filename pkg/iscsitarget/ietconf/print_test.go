package ietconf

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// same compares configurations but for where they were read.
var same = cmp.Options{
	cmpopts.IgnoreFields(Config{}, "File", "Warnings"),
	cmpopts.IgnoreFields(Target{}, "Line"),
	cmpopts.IgnoreFields(LUN{}, "Line"),
	cmpopts.EquateEmpty(),
}

// TestGolden: of each testdata/*.conf Format makes *.golden, which is read as
// the same, and Explain makes *.explain, without a password.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		c, err := ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if c.File != file {
			t.Errorf("read from %q", c.File)
		}
		base := strings.TrimSuffix(file, ".conf")
		var b bytes.Buffer
		if err := Format(&b, c); err != nil {
			t.Fatal(err)
		}
		wantFile(t, base+".golden", b.String())
		again, err := Parse("again", &b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again, same); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
		if len(again.Warnings) != 0 {
			t.Errorf("%s: what was written has warnings: %v", file, again.Warnings)
		}
		var e bytes.Buffer
		if err := Explain(&e, c); err != nil {
			t.Fatal(err)
		}
		wantFile(t, base+".explain", e.String())
		if strings.Contains(e.String(), "planted") {
			t.Errorf("%s: a password is shown:\n%s", file, &e)
		}
	}
}

func wantFile(t *testing.T, name, got string) {
	t.Helper()
	want, err := os.ReadFile(name)
	if err != nil {
		t.Errorf("%v; it would be\n%s", err, got)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestFormatLongest: no line needs to be continued.
func TestFormatLongest(t *testing.T) {
	long := strings.Repeat("x", maxText)
	target, err := Parse("f", strings.NewReader("Target iqn.x\nLun 0 Path=/"+strings.Repeat("a", maxLUNOption-len("Path=/"))))
	if err != nil {
		t.Fatal(err)
	}
	c := &Config{
		ISNSServer: long,
		Discovery:  Accounts{Incoming: []Account{{long, long}}, Outgoing: &Account{long, long}},
		Targets:    []Target{{Name: strings.Repeat("n", maxName), Alias: long, LUNs: target.Targets[0].LUNs}},
	}
	var b bytes.Buffer
	if err := Format(&b, c); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(b.String(), "\n") {
		if len(line) > maxLine {
			t.Errorf("a line of %d bytes: %.80s", len(line), line)
		}
	}
	again, err := Parse("f", &b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, again, same); diff != "" {
		t.Error(diff)
	}
}

// TestFormatErrors: what the file cannot hold is named, and nothing is written.
func TestFormatErrors(t *testing.T) {
	one := func(target Target) Config {
		if target.Name == "" {
			target.Name = "iqn.x"
		}
		return Config{Targets: []Target{target}}
	}
	lun := func(l LUN) Config { return one(Target{LUNs: []LUN{l}}) }
	accounts := func(list ...Account) Accounts { return Accounts{Incoming: list} }
	tests := []struct {
		c    Config
		says string
	}{
		{Config{ISNSServer: "a b"}, "iSNSServer: a name of 3 bytes"},
		{Config{Discovery: accounts(Account{"joe", "planted planted"})}, "discovery: IncomingUser: a password with a blank"},
		{Config{Discovery: accounts(Account{"joe", "planted"}, Account{"joe", "planted"})}, "discovery: IncomingUser joe: is there twice"},
		{Config{Discovery: Accounts{Outgoing: &Account{"joe", ""}}}, "discovery: OutgoingUser: no password"},
		{one(Target{Accounts: accounts(Account{"a,b", "planted"})}), "iqn.x: IncomingUser: a user with a blank, a comma"},
		{one(Target{Name: "iqn.x y"}), "Target: want a name without blanks"},
		{one(Target{Name: strings.Repeat("x", 224)}), "Target: a name of 224 bytes"},
		{Config{Targets: []Target{{Name: "iqn.x"}, {Name: "IQN.X"}}}, "IQN.X: is there twice"},
		{Config{Targets: []Target{{}}}, "Target: want a name"},
		{one(Target{Alias: "a\nb"}), "iqn.x: Alias: 3 bytes"},
		{one(Target{Alias: " a"}), `iqn.x: Alias: " a" would be read as "a"`},
		{one(Target{MaxSessions: -1}), `iqn.x: MaxSessions: "-1" would be read as "0"`},
		{one(Target{Parameters: map[string]string{"InitialR2T": "maybe"}}), `iqn.x: InitialR2T: "maybe", want Yes or No`},
		{one(Target{Parameters: map[string]string{"Wthreads": "0x8"}}), `iqn.x: Wthreads: "0x8" would be read as "8"`},
		{one(Target{Parameters: map[string]string{"DataPDUInOrder": "No"}}), `DataPDUInOrder: "No" would be read as "Yes"`},
		{one(Target{Parameters: map[string]string{"WCache": "1"}}), `iqn.x: "WCache": no such parameter`},
		{lun(LUN{Path: "/a,b"}), `iqn.x: Lun: 0: option Path="/a,b" has a blank, a comma`},
		{lun(LUN{Path: "/a b"}), "option Path="},
		{lun(LUN{Path: "/a", ScsiID: "a\n"}), `option ScsiId="a\n" has`},
		{lun(LUN{Path: "/a", ScsiSN: "a,b"}), "option ScsiSN="},
		{lun(LUN{}), "iqn.x: Lun: 0: no Path"},
		{lun(LUN{Number: maxLUN + 1, Path: "/a"}), "from 0 to 16383"},
		{lun(LUN{Path: "/a", Type: "tape"}), `option Type="tape", want fileio`},
		{lun(LUN{Path: "/a", IOMode: "rw"}), `option IOMode="rw"`},
		{lun(LUN{Path: "/a", Identity: "lio"}), `option Identity="lio"`},
		{lun(LUN{Path: "/a", BlockSize: 513}), `option BlockSize="513"`},
		{lun(LUN{Type: NullIO, Blocks: -1}), `option Blocks="-1"`},
		{lun(LUN{Path: "/" + strings.Repeat("a", maxLUNOption)}), "at most 2048"},
		{one(Target{LUNs: []LUN{{Path: "/a"}, {Path: "/b"}}}), "Lun: 0 is there already"},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		err := Format(&b, &tt.c)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v:\n got %v\nwant %s", tt.c, err, tt.says)
		}
		if b.Len() != 0 {
			t.Errorf("%s: %d bytes were written all the same", tt.says, b.Len())
		}
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("the error has a password: %v", err)
		}
	}
}

type fullDisk struct{}

var errFull = errors.New("full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrors(t *testing.T) {
	if err := Format(fullDisk{}, &Config{ISNSServer: "x"}); !errors.Is(err, errFull) {
		t.Error(err)
	}
	if err := Explain(fullDisk{}, &Config{}); !errors.Is(err, errFull) {
		t.Error(err)
	}
}

// Explain shows what Parse would not take without harm to a terminal.
func TestExplainQuotes(t *testing.T) {
	var b bytes.Buffer
	c := &Config{File: "a\x1b[2J", Targets: []Target{{Name: "iqn.\n", LUNs: []LUN{{Path: "/\x07"}}, Alias: "\xff"}}}
	if err := Explain(&b, c); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"a\x1b[2J"`, `"iqn.\n"`, `Path=/\a`, `"\xff"`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, &b)
		}
	}
	if !utf8.Valid(b.Bytes()) || strings.ContainsAny(b.String(), "\x1b\x07") {
		t.Errorf("%q", &b)
	}
}
