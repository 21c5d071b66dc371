package ietconf

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const example = `# discovery
iSNSServer isns.example
iSNSAccessControl Yes
IncomingUser anyone planted-user-0
OutgoingUser  me	planted-user-1

Target iqn.2026-11.io.example:disk
	# a comment with a backslash is not continued \
	IncomingUser joe planted-user-2
	incominguser jim planted-user-3
	OutgoingUser target planted-user-4
	Alias the big disk
	Lun 0 Path=/srv/a.img,Type=fileio,IOMode=wb,ScsiId=abc,ScsiSN=SN-1
	LUN 0x10 path=/srv/b.img,TYPE=FileIO,iomode=RO,BlockSize=4096
	Lun 2 Type=nullio,Sectors=100
	Lun 3 Type=blockio,Path=/dev/sdx
	MaxSessions 4
	HeaderDigest CRC32C,None
	MaxBurstLength \
		0x10000
	InitialR2T No
Target iqn.2026-11.io.example:other
	Lun 0 Path=/srv/last.img`

func TestParse(t *testing.T) {
	want := &Config{
		File: "ietd.conf",
		Discovery: Accounts{
			Incoming: []Account{{"anyone", "planted-user-0"}},
			Outgoing: &Account{"me", "planted-user-1"},
		},
		ISNSServer:        "isns.example",
		ISNSAccessControl: true,
		Targets: []Target{{
			Accounts: Accounts{
				Incoming: []Account{{"joe", "planted-user-2"}, {"jim", "planted-user-3"}},
				Outgoing: &Account{"target", "planted-user-4"},
			},
			Name:        "iqn.2026-11.io.example:disk",
			Alias:       "the big disk",
			MaxSessions: 4,
			LUNs: []LUN{
				{Number: 0, Path: "/srv/a.img", Type: FileIO, IOMode: WriteBack, Identity: IETIdentity, ScsiID: "abc", ScsiSN: "SN-1", Line: 13},
				{Number: 16, Path: "/srv/b.img", Type: FileIO, IOMode: ReadOnly, Identity: IETIdentity, BlockSize: 4096, Line: 14},
				{Number: 2, Type: NullIO, IOMode: WriteThrough, Identity: IETIdentity, Blocks: 100, Line: 15},
				{Number: 3, Path: "/dev/sdx", Type: BlockIO, IOMode: WriteThrough, Identity: IETIdentity, Line: 16},
			},
			Parameters: map[string]string{"HeaderDigest": "CRC32C,None", "MaxBurstLength": "65536", "InitialR2T": "No"},
			Line:       7,
		}, {
			Name:       "iqn.2026-11.io.example:other",
			LUNs:       []LUN{{Number: 0, Path: "/srv/last.img", Type: FileIO, IOMode: WriteThrough, Identity: IETIdentity, Line: 23}},
			Parameters: map[string]string{},
			Line:       22,
		}},
	}
	for name, text := range map[string]string{"unix": example, "dos": strings.ReplaceAll(example, "\n", "\r\n"), "with newline": example + "\n"} {
		got, err := Parse("ietd.conf", strings.NewReader(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseNothing(t *testing.T) {
	for _, text := range []string{"", "\n", "# only\n#comments", " \t\n\\\n\\", `\`} {
		got, err := Parse("x", strings.NewReader(text))
		if err != nil || len(got.Targets) != 0 {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// TestErrors: each error names file, line and directive and says what would be
// right, and no error repeats a password.
func TestErrors(t *testing.T) {
	const head = "Target iqn.x\n"
	tests := []struct {
		text string
		line int
		says string // directive and remedy
	}{
		{"Tarqet iqn.x", 1, `"Tarqet": no such directive`},
		{"WCache 1", 1, `"WCache": no such directive`},
		{"\n\n  Target\n", 3, "Target: has 0 words after it, want an iSCSI name"},
		{"Target iqn.x y", 1, "Target: has 2 words after it"},
		{head + "Target IQN.X", 2, `Target: "IQN.X" is there already, in line 1`},
		{"Target iqn." + strings.Repeat("x", 300), 1, "at most 223"},
		{"Lun 0 Path=/a", 1, "Lun: belongs to a target"},
		{"MaxSessions 1", 1, "MaxSessions: belongs to a target"},
		{"InitialR2T Yes", 1, "InitialR2T: belongs to a target"},
		{head + "iSNSServer x", 2, "iSNSServer: is global"},
		{"iSNSAccessControl maybe", 1, `iSNSAccessControl: "maybe", want Yes or No`},
		{"IncomingUser planted", 1, "IncomingUser: has 1 words after it, want a user and a password"},
		{"IncomingUser joe planted planted", 1, "IncomingUser: has 3 words"},
		{"IncomingUser joe planted\nIncomingUser joe planted", 2, `IncomingUser: user "joe" is there already`},
		{"OutgoingUser planted", 1, "OutgoingUser: has 1 words"},
		{head + "Alias", 2, "Alias: has 0 words after it, want a name of 1 to 255 bytes"},
		{head + "Lun 0", 2, "Lun: has 1 words after it, want a number and options"},
		{head + "Lun 0 Path=/a, Type=fileio", 2, "Lun: has 3 words"},
		{head + "Lun 16384 Path=/a", 2, `Lun: "16384", want a number from 0 to 16383`},
		{head + "Lun -1 Path=/a", 2, "want a number from 0"},
		{head + "Lun x Path=/a", 2, "want a number from 0"},
		{head + "Lun 0 Path=/a\nLun 0x0 Path=/b", 3, "Lun: 0 is there already, in line 2"},
		{head + "Lun 0 Type=fileio", 2, "Lun: 0: no Path: want Path="},
		{head + "Lun 0 Path=", 2, `"Path=", want Option=Value`},
		{head + "Lun 0 Path=/a,", 2, `"", want Option=Value`},
		{head + "Lun 0 /a", 2, `"/a", want Option=Value`},
		{head + "Lun 0 Path=/a,path=/b", 2, "Path is given twice"},
		{head + "Lun 0 Path=/a,WriteCache=1", 2, `no option "WriteCache"; there are Path`},
		{head + "Lun 0 Path=/a,Type=iscsi", 2, "want fileio, blockio or nullio"},
		{head + "Lun 0 Path=/a,IOMode=rw", 2, "want wt, wb or ro"},
		{head + "Lun 0 Path=/a,ScsiId=12345678901234567", 2, "ScsiId has 17 bytes, at most 16"},
		{head + "Lun 0 Path=/a,ScsiSN=\xff", 2, "printable ASCII"},
		{head + "Lun 0 Path=/a,ScsiSN=" + strings.Repeat("1", 33), 2, "at most 32"},
		{head + "Lun 0 Path=/a,BlockSize=256", 2, "want 512, 1024, 2048 or 4096"},
		{head + "Lun 0 Path=/a,BlockSize=768", 2, "want 512, 1024, 2048 or 4096"},
		{head + "Lun 0 Path=/a,Blocks=1", 2, "Blocks is for Type=nullio alone"},
		{head + "Lun 0 Type=nullio,Blocks=0", 2, "want a number from 1"},
		{head + "Lun 0 Type=nullio,Path=/a", 2, "Type=nullio does not have"},
		{head + "Lun 0 Path=/" + strings.Repeat("a", 3000), 2, "at most 2048"},
		{head + "MaxSessions many", 2, `MaxSessions: "many", want a number from 0 to 65535`},
		{head + "InitialR2T yes", 2, `InitialR2T: "yes", want Yes or No`},
		{head + "HeaderDigest crc32c", 2, `HeaderDigest: "crc32c", want None, CRC32C`},
		{head + "MaxBurstLength 64k", 2, `MaxBurstLength: "64k", want a number from 512 to 16777215`},
		{head + "MaxBurstLength 1_000", 2, "want a number"},
		{head + "MaxBurstLength 99999999999999999999", 2, "want a number"},
		{head + "MaxBurstLength \\\n\\\n", 2, "MaxBurstLength: has 0 words after it, want a number from 512"},
	}
	for _, tt := range tests {
		_, err := Parse("ietd.conf", strings.NewReader(tt.text))
		var p Problem
		if !errors.As(err, &p) {
			t.Errorf("%q: no error", tt.text)
			continue
		}
		if p.File != "ietd.conf" || p.Line != tt.line || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q:\n got %v\nwant line %d, %s", tt.text, err, tt.line, tt.says)
		}
		if strings.Contains(err.Error(), "planted") {
			t.Errorf("%q: the error repeats a password: %v", tt.text, err)
		}
	}
}

// Every directive's number is moved into its range with a warning.
func TestRanges(t *testing.T) {
	tests := []struct{ name, word, want string }{
		{"MaxConnections", "0", "1"}, {"MaxConnections", "70000", "65535"},
		{"MaxRecvDataSegmentLength", "1", "512"}, {"MaxXmitDataSegmentLength", "0x7fffffff", "16777215"},
		{"MaxBurstLength", "-5", "512"}, {"FirstBurstLength", "010", "512"},
		{"DefaultTime2Wait", "4000", "3600"}, {"DefaultTime2Retain", "-1", "0"},
		{"MaxOutstandingR2T", "0", "1"}, {"NOPInterval", "91", "90"}, {"NOPTimeout", "91", "90"},
		{"Wthreads", "0", "1"}, {"Wthreads", "129", "128"}, {"QueuedCommands", "257", "256"},
		{"DataPDUInOrder", "No", "Yes"}, {"DataSequenceInOrder", "No", "Yes"}, {"ErrorRecoveryLevel", "3", "2"},
		{"OFMarker", "Yes", "No"}, {"IFMarker", "Yes", "No"}, {"OFMarkInt", "1", "2048"}, {"IFMarkInt", "1", "2048"},
		{"Type", "1", "0"},
	}
	for _, tt := range tests {
		got, err := Parse("f", strings.NewReader("Target iqn.x\n"+tt.name+" "+tt.word))
		if err != nil {
			t.Errorf("%s %s: %v", tt.name, tt.word, err)
			continue
		}
		if v := got.Targets[0].Parameters[tt.name]; v != tt.want {
			t.Errorf("%s %s became %q, want %q", tt.name, tt.word, v, tt.want)
		}
		if len(got.Warnings) != 1 || got.Warnings[0].Line != 2 || got.Warnings[0].Directive != tt.name {
			t.Errorf("%s %s: warnings %v", tt.name, tt.word, got.Warnings)
		}
	}
}

// Every default is a value that its own directive takes without a warning.
func TestDefaults(t *testing.T) {
	for _, k := range parameters {
		got, err := Parse("f", strings.NewReader("Target iqn.x\n"+k.name+" "+Default(k.name)))
		if err != nil || len(got.Warnings) != 0 || got.Targets[0].Parameters[k.name] != k.standard {
			t.Errorf("%s %s: %+v, %v", k.name, k.standard, got, err)
		}
	}
	if Default("NoSuchKey") != "" {
		t.Error("an unknown parameter has a default")
	}
}

func TestAllErrorsAreCollected(t *testing.T) {
	_, err := Parse("f", strings.NewReader("A\nB\nC"))
	if n := strings.Count(err.Error(), "no such directive"); n != 3 {
		t.Errorf("%d errors, want 3: %v", n, err)
	}
	_, err = Parse("f", strings.NewReader(strings.Repeat("A\n", 1000)))
	if n := strings.Count(err.Error(), "no such directive"); n != maxErrors {
		t.Errorf("%d errors, want %d", n, maxErrors)
	}
}

func TestSecondOutgoingUserWarns(t *testing.T) {
	got, err := Parse("f", strings.NewReader("OutgoingUser a planted-a\nOutgoingUser b planted-b"))
	if err != nil {
		t.Fatal(err)
	}
	if got.Discovery.Outgoing.User != "b" || len(got.Warnings) != 1 || strings.Contains(got.Warnings[0].Error(), "planted") {
		t.Errorf("%+v", got)
	}
}

func TestTooLong(t *testing.T) {
	if _, err := Parse("f", strings.NewReader(strings.Repeat("# x\n", maxFile/4+1))); err == nil {
		t.Error("a file beyond the bound was read")
	}
}

// FuzzParse: whatever the bytes, what is accepted keeps to its bounds, is
// written again as the same, and can be explained without a password.
func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Add("Target a\nLun 0 Type=nullio,Blocks=1\nMaxSessions 0x1")
	f.Add("Target a\\\n b\\")
	f.Add("IncomingUser a b\\ \nTarget x\nAlias \\ \nHeaderDigest None,None\nLun 1 Path=\xff\\ ")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f", strings.NewReader(text))
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if c == nil {
			return
		}
		for _, target := range c.Targets {
			if target.Name == "" || len(target.Name) > maxName || target.MaxSessions < 0 || target.Line < 1 {
				t.Errorf("%+v", target)
			}
			for _, l := range target.LUNs {
				if l.Number > maxLUN || (l.Path == "") != (l.Type == NullIO) || l.Blocks < 0 || len(l.ScsiID) > maxScsiID || l.Identity == "" {
					t.Errorf("%+v", l)
				}
			}
		}
		var b bytes.Buffer
		if err := Format(&b, c); err != nil {
			t.Fatal(err)
		}
		again, err := Parse("f", &b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, again, same); diff != "" {
			t.Error(diff)
		}
		if err := Explain(&b, c); err != nil {
			t.Error(err)
		}
	})
}

// A password that can be guessed is taken, with a warning that does not repeat it.
func TestShortPassword(t *testing.T) {
	for password, warns := range map[string]int{"planted-11b": 1, "planted-12by": 0} {
		c, err := Parse("ietd.conf", strings.NewReader("Target iqn.x\nIncomingUser joe "+password+"\n"))
		if err != nil || len(c.Warnings) != warns {
			t.Fatalf("%s: %v, %v", password, c.Warnings, err)
		}
		if warns > 0 && (!strings.Contains(c.Warnings[0].Error(), "ietd.conf:2: IncomingUser: the password has fewer than 12 bytes") || strings.Contains(c.Warnings[0].Error(), "planted")) {
			t.Error(c.Warnings[0])
		}
	}
}
