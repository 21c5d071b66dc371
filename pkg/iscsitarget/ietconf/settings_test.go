package ietconf

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// numbers are the directives with a number, by ietd.conf(5): from low to high,
// and what is kept of each where only one value is supported.
var numbers = map[string]struct {
	standard, low, high int
	only                string
}{
	"MaxSessions":              {0, 0, 65535, ""},
	"MaxConnections":           {1, 1, 65535, ""},
	"MaxRecvDataSegmentLength": {8192, 512, 16777215, ""},
	"MaxXmitDataSegmentLength": {8192, 512, 16777215, ""},
	"MaxBurstLength":           {262144, 512, 16777215, ""},
	"FirstBurstLength":         {65536, 512, 16777215, ""},
	"DefaultTime2Wait":         {2, 0, 3600, ""},
	"DefaultTime2Retain":       {20, 0, 3600, ""},
	"MaxOutstandingR2T":        {1, 1, 65535, ""},
	"ErrorRecoveryLevel":       {0, 0, 2, ""},
	"OFMarkInt":                {2048, 1, 65535, "2048"},
	"IFMarkInt":                {2048, 1, 65535, "2048"},
	"NOPInterval":              {0, 0, 90, ""},
	"NOPTimeout":               {0, 0, 90, ""},
	"Wthreads":                 {8, 1, 128, ""},
	"QueuedCommands":           {32, 1, 256, ""},
	"Type":                     {0, 0, 255, "0"},
}

// yesNos are the directives with Yes or No: the default, and what is kept of
// each where only one value is supported.
var yesNos = map[string]struct{ standard, only string }{
	"InitialR2T":          {"Yes", ""},
	"ImmediateData":       {"No", ""},
	"DataPDUInOrder":      {"Yes", "Yes"},
	"DataSequenceInOrder": {"Yes", "Yes"},
	"OFMarker":            {"No", "No"},
	"IFMarker":            {"No", "No"},
}

// others are the directives with neither.
var others = []string{"HeaderDigest", "DataDigest", "Alias"}

func TestTablesNameEverySetting(t *testing.T) {
	want := append(slices.Concat(slices.Collect(maps.Keys(numbers)), slices.Collect(maps.Keys(yesNos))), others...)
	got := append(Parameters(), "MaxSessions", "Alias")
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("there are\n%v\nand tables of\n%v", got, want)
	}
}

// wantSetting tries a value by each way there is: the file, SetParameter and
// Target.Set. An empty want is an error that says so.
func wantSetting(t *testing.T, name, value, want string, warns bool, says string) {
	t.Helper()
	c, fileErr := Parse("f", strings.NewReader("Target iqn.x\n"+name+" "+value))
	canonical, warning, err := SetParameter(strings.ToUpper(name), value)
	target := Target{}
	setWarning, setErr := target.Set(strings.ToLower(name), value)
	if want == "" {
		for way, err := range map[string]error{"the file": fileErr, "SetParameter": err, "Set": setErr} {
			if err == nil || !strings.Contains(err.Error(), name+": ") || !strings.Contains(err.Error(), says) {
				t.Errorf("%s %q by %s: %v, want %s", name, value, way, err, says)
			}
		}
		if len(target.Parameters) != 0 || target.MaxSessions != 0 || target.Alias != "" {
			t.Errorf("%s %q: was set in spite of the error: %+v", name, value, target)
		}
		return
	}
	if fileErr != nil || err != nil || setErr != nil {
		t.Errorf("%s %q: %v, %v, %v", name, value, fileErr, err, setErr)
		return
	}
	s, err := findSetting(name)
	if err != nil {
		t.Fatal(err)
	}
	fromFile, _ := c.Targets[0].value(s)
	set, _ := target.value(s)
	if canonical != want || fromFile != want || set != want {
		t.Errorf("%s %q became %q, %q and %q, want %q", name, value, canonical, fromFile, set, want)
	}
	if (warning != "") != warns || (setWarning != "") != warns || (len(c.Warnings) == 1) != warns || len(c.Warnings) > 1 {
		t.Errorf("%s %q: warnings %q, %q, %v; want one: %v", name, value, warning, setWarning, c.Warnings, warns)
		return
	}
	if warns && (warning != setWarning || warning != name+": "+c.Warnings[0].Message) {
		t.Errorf("%s %q: warnings %q, %q, %v", name, value, warning, setWarning, c.Warnings)
	}
}

func TestNumbers(t *testing.T) {
	for name, n := range numbers {
		if Default(name) != strconv.Itoa(n.standard) {
			t.Errorf("%s has the default %s, want %d", name, Default(name), n.standard)
		}
		kept := func(v int) string {
			if n.only != "" {
				return n.only
			}
			return strconv.Itoa(v)
		}
		for _, tt := range []struct {
			value string
			want  int
		}{
			{strconv.Itoa(n.standard), n.standard},
			{strconv.Itoa(n.low), n.low}, {strconv.Itoa(n.high), n.high},
			{strconv.Itoa(n.low - 1), n.low}, {strconv.Itoa(n.high + 1), n.high},
			{fmt.Sprintf("%#x", n.high), n.high}, {fmt.Sprintf("0X%X", n.high), n.high}, {fmt.Sprintf("0%o", n.high), n.high},
			{"+" + strconv.Itoa(n.high), n.high}, {"-1000000", n.low}, {"9223372036854775807", n.high},
		} {
			v, err := strconv.ParseInt(tt.value, 0, 64)
			if err != nil {
				t.Fatal(err)
			}
			warns := v < int64(n.low) || v > int64(n.high) || n.only != "" && strconv.FormatInt(v, 10) != n.only
			wantSetting(t, name, tt.value, kept(tt.want), warns, "")
		}
		says := fmt.Sprintf("want a number from %d to %d", n.low, n.high)
		for _, value := range []string{"x", "64k", "1_0", "0b1", "0o7", "08", "0x", "0xg", "1.5", "1e3", "--1", "+-1", "٣", "Yes", "9223372036854775808"} {
			wantSetting(t, name, value, "", false, says)
		}
	}
}

func TestYesNos(t *testing.T) {
	for name, y := range yesNos {
		if Default(name) != y.standard {
			t.Errorf("%s has the default %s, want %s", name, Default(name), y.standard)
		}
		for _, value := range []string{"Yes", "No"} {
			if y.only != "" {
				wantSetting(t, name, value, y.only, value != y.only, "")
			} else {
				wantSetting(t, name, value, value, false, "")
			}
		}
		for _, value := range []string{"yes", "YES", "no", "true", "1", "0", "Yes,No", "Y"} {
			wantSetting(t, name, value, "", false, "want Yes or No")
		}
	}
}

func TestDigests(t *testing.T) {
	for _, name := range []string{"HeaderDigest", "DataDigest"} {
		if Default(name) != "None" {
			t.Errorf("%s has the default %s", name, Default(name))
		}
		for value, want := range map[string]string{
			"None": "None", "CRC32C": "CRC32C", "None,CRC32C": "None,CRC32C", "CRC32C,None": "CRC32C,None",
			"CRC32C,CRC32C": "CRC32C", "None,CRC32C,None": "None,CRC32C",
		} {
			wantSetting(t, name, value, want, false, "")
		}
		for _, value := range []string{"none", "crc32c", "CRC32", "None,", ",None", "None;CRC32C", "Yes"} {
			wantSetting(t, name, value, "", false, "want None, CRC32C or both with a comma between")
		}
	}
}

func TestAlias(t *testing.T) {
	long := strings.Repeat("a", maxText)
	for value, want := range map[string]string{
		"disk": "disk", "the  big\tdisk": "the big disk", "# one": "# one", "Größe": "Größe", long: long,
	} {
		wantSetting(t, "Alias", value, want, false, "")
	}
	for _, value := range []string{long + "a", " "} {
		_, _, err := SetParameter("Alias", value)
		if err == nil || !strings.Contains(err.Error(), "want a name of 1 to 255 bytes") {
			t.Errorf("%q: %v", value, err)
		}
	}
	for _, value := range []string{"a\x00b", "a\x7f", "a\u0085", "a\nTarget b"} {
		if _, _, err := SetParameter("Alias", value); err == nil {
			t.Errorf("%q has no error", value)
		}
	}
}

func TestSetRefusesWhatIsNoParameter(t *testing.T) {
	target := Target{Name: "iqn.x"}
	for _, name := range []string{"", "Target", "Lun", "IncomingUser", "OutgoingUser", "iSNSServer", "MaxFoo"} {
		_, err := target.Set(name, "planted")
		if err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%q: %v", name, err)
		}
		if _, _, err := SetParameter(name, "planted"); err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Set changes the map that the target has, and no other.
func TestSetReplacesOneEntry(t *testing.T) {
	before := map[string]string{"InitialR2T": "No", "Wthreads": "4"}
	target := Target{Parameters: maps.Clone(before)}
	if _, err := target.Set("wthreads", "16"); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(target.Parameters, map[string]string{"InitialR2T": "No", "Wthreads": "16"}) || before["Wthreads"] != "4" {
		t.Errorf("%v, was %v", target.Parameters, before)
	}
}

func TestCheckAccount(t *testing.T) {
	long := strings.Repeat("p", maxText)
	for _, a := range []Account{{"u", "p"}, {"#u", "#p"}, {"iqn.2026-11.io.example:a", `p\=;"'%`}, {long, long}, {"ü", "\xff"}} {
		if err := CheckAccount(a); err != nil {
			t.Errorf("%+v: %v", a, err)
		}
		c, err := Parse("f", strings.NewReader("IncomingUser "+a.User+" "+a.Password))
		if err != nil || c.Discovery.Incoming[0] != a {
			t.Errorf("%+v: %v, %v", a, c, err)
		}
	}
	for _, bad := range []string{"", "planted planted", "planted,", "planted\x00", "planted\n", "planted\r", "planted\x7f", long + "p"} {
		for _, a := range []Account{{"u", bad}, {bad, "planted"}} {
			err := CheckAccount(a)
			if err == nil || strings.Contains(err.Error(), "planted") || strings.Contains(err.Error(), long) {
				t.Errorf("%+v: %v", a, err)
			}
			if err != nil && !strings.Contains(err.Error(), map[bool]string{true: "password", false: "user"}[a.User == "u"]) {
				t.Errorf("%+v: does not say which: %v", a, err)
			}
		}
	}
}
