package ietd

import (
	"bufio"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestEveryMessage: each message of ietd(8), as docs/ietd-compatibility.md lists them,
// is logged here with its wording, or its row says that its cause cannot be.
func TestEveryMessage(t *testing.T) {
	have := map[string]message{}
	for _, m := range allMessages {
		have[normal(m.format)] = m
	}
	// What is an error of the process's start has its wording where it is made.
	start := map[string]bool{}
	for _, s := range []string{
		"unable to set SO_REUSEADDR on server socket (%s)!", "unable to create server socket (%s)!", "unable to bind server socket (%s)!",
		"unable to listen to server socket (%s)!", "unable to create pid file", "starting daemon failed", "unable to lock pid file",
	} {
		start[normal(s)] = true
	}
	f, err := os.Open("../../../docs/ietd-compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // read only
	rows := 0
	row := regexp.MustCompile(`^\| (.+) \| (error|[012]) \| (.+) \|$`)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		match := row.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		rows++
		format, _, _ := strings.Cut(match[1], ", PROC_")
		m, logged := have[normal(format)]
		delete(have, normal(format))
		never := strings.HasPrefix(match[3], "cannot be")
		if logged == never && !start[normal(format)] {
			t.Errorf("%q: logged %v, its row says %q", format, logged, match[3])
		}
		level := map[string]bool{"error": m.level == LevelError, "0": m.level == LevelDebug0, "1": m.level == LevelDebug1, "2": m.level == LevelDebug2}
		if logged && !level[match[2]] {
			t.Errorf("%q is logged at %v, its row says %s", format, m.level, match[2])
		}
	}
	if rows != 46 {
		t.Errorf("%d rows, the manual page has 46 messages", rows)
	}
	for format := range have {
		t.Errorf("%q has no row", format)
	}
}

// normal has one verb for all ways to print a number.
func normal(format string) string {
	return regexp.MustCompile(`%#?[a-zA-Z]*[dux]`).ReplaceAllString(format, "%d")
}
