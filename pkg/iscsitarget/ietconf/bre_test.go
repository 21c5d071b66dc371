package ietconf

import (
	"strings"
	"testing"
)

func TestBRE(t *testing.T) {
	tests := []struct {
		pattern  string
		yes, not []string
	}{
		{"iqn.x", []string{"iqn.x", "iqn-x", "IQN.X"}, []string{"iqn.xy", "aiqn.x", "iqnx", ""}},
		{`iqn\.x`, []string{"iqn.x"}, []string{"iqn-x"}},
		{"iqn.*", []string{"iqn", "iqn.2026-11.io.example:a"}, []string{"xiqn", "eui.x"}},
		{".*:web[0-9]", []string{"iqn.x:web0", ":web9"}, []string{"iqn.x:web10", "iqn.x:weba"}},
		{"a*", []string{"", "a", "aaa"}, []string{"b", "ab"}},
		{"a**", []string{"", "aaa"}, []string{"a*"}},
		{"*a", []string{"*a"}, []string{"a", "xa"}},
		{"^*a", []string{"*a"}, []string{"a"}},
		{`\(*a\)`, []string{"*a"}, []string{"a"}},
		{`\(ab\)*`, []string{"", "ab", "abab"}, []string{"aba"}},
		{`\(ab\)*c`, []string{"c", "ababc"}, []string{"abc*"}},
		{`\(a\(b\)c\)\{2\}`, []string{"abcabc"}, []string{"abc"}},
		{`a\{2\}`, []string{"aa"}, []string{"a", "aaa", "a{2}"}},
		{`a\{2,\}`, []string{"aa", "aaaa"}, []string{"a"}},
		{`a\{0,2\}`, []string{"", "a", "aa"}, []string{"aaa"}},
		{`a\{2\}*`, []string{"", "aa", "aaaa"}, []string{"aaa"}},
		{"a+?|b{2}(c)", []string{"a+?|b{2}(c)"}, []string{"aa", "a", "bb"}},
		{`a\+b\?`, []string{"a", "aab"}, []string{"", "abb"}},
		{`a\|bc`, []string{"a", "bc"}, []string{"ac", "a|bc"}},
		{`\(a\|b\)c`, []string{"ac", "bc"}, []string{"a"}},
		{"^a$", []string{"a"}, []string{"^a$"}},
		{"a^b", []string{"a^b"}, []string{"ab"}},
		{"a$b", []string{"a$b"}, []string{"ab"}},
		{"^^a", []string{"^a"}, []string{"a"}},
		{`\(^a$\)`, []string{"a"}, []string{"^a$"}},
		{`^a\|^b$`, []string{"a", "b"}, []string{"ab"}},
		{"$", []string{""}, []string{"$"}},
		{`\$\^\*\[\]\\\/`, []string{`$^*[]\/`}, nil},
		{"[abc]", []string{"a", "B"}, []string{"d", "ab"}},
		{"[^abc]", []string{"d", "^"}, []string{"a", "B", ""}},
		{"[]a]", []string{"]", "a"}, []string{"[", "a]"}},
		{"[^]a]", []string{"b", "["}, []string{"]", "a"}},
		{"[a-]", []string{"a", "-"}, []string{"b"}},
		{"[-a]", []string{"a", "-"}, []string{"b"}},
		{"[!--]", []string{"!", "-", "+"}, []string{".", "a"}},
		{`[\n]`, []string{`\`, "n"}, []string{"\n"}},
		{"[.*[$]", []string{".", "*", "[", "$"}, []string{"a"}},
		{"[a^]", []string{"a", "^"}, []string{"b"}},
		{"[[:digit:]x]*", []string{"12x3", ""}, []string{"y"}},
		{"[^[:alnum:]]", []string{"-", "."}, []string{"a", "Z", "5"}},
		{"[[:upper:]]", []string{"A", "a"}, []string{"1"}},
		{"[[.-.]a[=b=]]", []string{"-", "a", "b"}, []string{"c", "=", "."}},
		{"[[.a.]-c]", []string{"a", "b", "c"}, []string{"d", "-"}},
		{"a]", []string{"a]"}, nil},
		{"ü.", []string{"üx", "ÜX", "üß"}, []string{"ü"}},
		{".", []string{"ü", "\n", "a"}, []string{"ab", ""}},
	}
	for _, tt := range tests {
		re, err := compileBRE(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		for _, s := range tt.yes {
			if !re.MatchString(s) {
				t.Errorf("%s does not match %q; it is %s", tt.pattern, s, re)
			}
		}
		for _, s := range tt.not {
			if re.MatchString(s) {
				t.Errorf("%s matches %q; it is %s", tt.pattern, s, re)
			}
		}
	}
}

func TestBREErrors(t *testing.T) {
	tests := []struct{ pattern, says string }{
		{`\(a\)\1`, `back-reference \1`},
		{`\(a\)\9`, `back-reference \9`},
		{`a\`, "ends with a backslash"},
		{`\w`, `\w, which has no meaning here`}, {`\<a`, `\<, which`}, {`\0`, `\0, which`}, {`\n`, `\n, which`}, {`\}`, `\}, which`},
		{`\(a`, `\( without \)`}, {`a\)`, `\) without \(`}, {`\(a\)\)`, `\) without \(`},
		{`\{2\}`, "nothing before it"}, {`^\{2\}`, "nothing before it"}, {`\(\+a\)`, "nothing before it"}, {`a\|\?`, "nothing before it"},
		{`a\{2`, `\{ without \}`},
		{`a\{\}`, `want \{n\}`}, {`a\{,2\}`, `want \{n\}`}, {`a\{3,2\}`, `want \{n\}`}, {`a\{256\}`, "up to 255"},
		{`a\{-1\}`, `want \{n\}`}, {`a\{1,2,3\}`, `want \{n\}`}, {`a\{+1\}`, `want \{n\}`},
		{"[a", "[ without ]"}, {"[]", "[ without ]"}, {"[^]", "[ without ]"}, {"[", "[ without ]"}, {"[^", "[ without ]"}, {"[[:alpha:]", "[ without ]"}, {"[[:alpha", "[ without ]"},
		{"[[:word:]]", "no class [:word:]; there are alnum"}, {"[[:ALPHA:]]", "no class"}, {"[[::]]", "no class"},
		{"[z-a]", "the range z-a"}, {"[a-[:digit:]]", "ends with a class"}, {"[[.ab.]]", "want one character"}, {"[[==]]", "want one character"},
		{"\xff", "UTF-8"},
		{`\(a\{255\}\)\{255\}`, "too large"},
		{`\(` + strings.Repeat("abcdefghij", 90) + `\)\{255\}`, "too large"},
	}
	for _, tt := range tests {
		re, err := compileBRE(tt.pattern)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%.80s: %v, %v, want %s", tt.pattern, re, err, tt.says)
		}
	}
}
