package ietconf

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// TestBREAgainstGrep: whatever both take, grep -ix matches the same names. It
// has the regcomp(3) that IET had.
func TestBREAgainstGrep(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields(`a b a b . * ^ $ \( \) \( \) \{1,2\} \{2\} \| \+ \? [ab] [^a] []a] [a-b] [[:alpha:]] [*^] + ? { } ( ) | \* \.`)
	text := func(words []string, most int) string {
		var b strings.Builder
		for range 1 + random.IntN(most) {
			b.WriteString(words[random.IntN(len(words))])
		}
		return b.String()
	}
	names := []string{""}
	for range 300 {
		names = append(names, text(strings.Split("ababab*^$+?]({.", ""), 5))
	}
	compared := 0
	for range 600 {
		pattern := text(words, 7)
		re, err := compileBRE(pattern)
		if err != nil {
			continue
		}
		grep := exec.CommandContext(t.Context(), "grep", "-i", "-x", "-e", pattern)
		grep.Env = []string{"LC_ALL=C"}
		grep.Stdin = strings.NewReader(strings.Join(names, "\n") + "\n")
		want, err := grep.Output()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 1) {
			t.Fatalf("grep takes no %q: %v", pattern, err)
		}
		var got bytes.Buffer
		for _, name := range names {
			if re.MatchString(name) {
				got.WriteString(name + "\n")
			}
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%q, here %s:\n got %.100q\nwant %.100q", pattern, re, &got, want)
		}
		compared++
	}
	if compared < 200 {
		t.Errorf("only %d patterns were compared", compared)
	}
}
