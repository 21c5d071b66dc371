package ietconf

import (
	"strings"
	"testing"
)

func TestParseLUN(t *testing.T) {
	base := LUN{Number: 5, Path: "/a", Type: FileIO, IOMode: WriteThrough, Identity: IETIdentity}
	with := func(change func(*LUN)) LUN {
		l := base
		change(&l)
		return l
	}
	tests := []struct {
		options string
		want    LUN
	}{
		{"Path=/a", base},
		{"PATH=/a,type=FILEIO,iomode=WT,identity=IET", base},
		{"Path=/a=b#c%d", with(func(l *LUN) { l.Path = "/a=b#c%d" })},
		{"Path=/ä\u00a0b", with(func(l *LUN) { l.Path = "/ä\u00a0b" })},
		{"Path=/a,Type=blockio", with(func(l *LUN) { l.Type = BlockIO })},
		{"Path=/a,IOMode=wb", with(func(l *LUN) { l.IOMode = WriteBack })},
		{"Path=/a,IOMode=ro", with(func(l *LUN) { l.IOMode = ReadOnly })},
		{"Path=/a,Identity=Modern", with(func(l *LUN) { l.Identity = ModernIdentity })},
		{"Path=/a,ScsiId=1234567890123456", with(func(l *LUN) { l.ScsiID = "1234567890123456" })},
		{"Path=/a,ScsiSN=12345678901234567890123456789012", with(func(l *LUN) { l.ScsiSN = "12345678901234567890123456789012" })},
		{"Path=/a,BlockSize=512", with(func(l *LUN) { l.BlockSize = 512 })},
		{"Path=/a,BlockSize=0x1000", with(func(l *LUN) { l.BlockSize = 4096 })},
		{"Type=nullio", LUN{Number: 5, Type: NullIO, IOMode: WriteThrough, Identity: IETIdentity}},
		{"Type=nullio,Blocks=1", LUN{Number: 5, Type: NullIO, IOMode: WriteThrough, Blocks: 1, Identity: IETIdentity}},
		{"Type=nullio,Sectors=1125899906842624", LUN{Number: 5, Type: NullIO, IOMode: WriteThrough, Blocks: maxBlocks, Identity: IETIdentity}},
	}
	for _, tt := range tests {
		got, err := ParseLUN(5, tt.options)
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.options, got, err, tt.want)
		}
		text, err := lunText(got)
		if again, err2 := ParseLUN(5, text); err != nil || err2 != nil || again != got {
			t.Errorf("%s was written as %s: %+v, %v, %v", tt.options, text, again, err, err2)
		}
	}
}

func TestParseLUNErrors(t *testing.T) {
	tests := []struct{ options, says string }{
		{"", `"", want Option=Value`},
		{"Path", `"Path", want Option=Value`},
		{"Path=", "want Option=Value"},
		{"Path=/a b", "no blanks"},
		{"Path=/a\tb", "no blanks"},
		{"Path=/a\x00", "want Option=Value"},
		{"Path=/a\n", "want Option=Value"},
		{" Path=/a", `no option " Path"; there are Path, Type, IOMode, ScsiId, ScsiSN, BlockSize, Blocks, Identity`},
		{"Path=/a,Identity=lio", "want iet or modern"},
		{"Path=/a,Identity=iet,identity=modern", "Identity is given twice"},
		{"Type=nullio,Blocks=1,Sectors=1", "Blocks is given twice"},
		{"Type=nullio,Blocks=0", "want a number from 1 to 1125899906842624"},
		{"Type=nullio,Blocks=1125899906842625", "want a number from 1"},
		{"Type=nullio,Blocks=-1", "want a number from 1"},
		{"Type=nullio,Blocks=1_0", "want a number from 1"},
		{"Type=nullio,Blocks=all", "want a number from 1"},
		{"Path=/a,BlockSize=511", "want 512, 1024, 2048 or 4096"},
		{"Path=/a,BlockSize=8192", "want 512, 1024, 2048 or 4096"},
		{"Path=/a,BlockSize=4k", "want 512, 1024, 2048 or 4096"},
		{"Path=/a,ScsiId=12345678901234567", "at most 16"},
		{"Path=/a,ScsiSN=123456789012345678901234567890123", "at most 32"},
		{"Path=/a,ScsiSN=ü", "printable ASCII"},
		{"Path=/a,Type=blockio,Blocks=1", "for Type=nullio alone"},
		{"Path=/a,Type=ramdisk", "want fileio, blockio or nullio"},
		{"Path=/a,IOMode=rw", "want wt, wb or ro"},
		{"Path=/" + strings.Repeat("a", maxLUNOption-5), "at most 2048"},
	}
	for _, tt := range tests {
		got, err := ParseLUN(5, tt.options)
		if err == nil || !strings.Contains(err.Error(), tt.says) || got != (LUN{}) {
			t.Errorf("%.80q: %+v, %v, want %s", tt.options, got, err, tt.says)
		}
	}
	if _, err := ParseLUN(maxLUN+1, "Path=/a"); err == nil || !strings.Contains(err.Error(), "from 0 to 16383") {
		t.Error(err)
	}
	if l, err := ParseLUN(maxLUN, "Path=/a"); err != nil || l.Number != 16383 {
		t.Error(l, err)
	}
}

func TestUpdateLUN(t *testing.T) {
	old, err := ParseLUN(3, "Path=/a,Type=blockio,ScsiId=id,IOMode=wb,Identity=modern")
	if err != nil {
		t.Fatal(err)
	}
	old.Line = 17
	want := old
	want.IOMode = ReadOnly
	got, err := UpdateLUN(old, "IOMode=ro")
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	want.Type, want.Path = FileIO, "/b"
	if got, err = UpdateLUN(got, "path=/b,type=fileio"); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for options, says := range map[string]string{
		"Type=nullio": "a Path, which Type=nullio does not have",
		"Blocks=7":    "for Type=nullio alone",
		"IOMode=rw":   "want wt, wb or ro",
		"":            "want Option=Value",
	} {
		if got, err := UpdateLUN(old, options); err == nil || !strings.Contains(err.Error(), says) || got != (LUN{}) {
			t.Errorf("%q: %+v, %v, want %s", options, got, err, says)
		}
	}
}
