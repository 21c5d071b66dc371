package conformance

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// report is what iscsi-test-cu printed.
type report struct {
	// failed are the names of the tests that failed, with what they printed.
	failed map[string]string
	passed []string
	// total, ran, ok, bad and inactive are the "tests" row of the summary.
	total, ran, ok, bad, inactive int
	skips                         []string
}

var (
	testBegins = regexp.MustCompile(`(?m)^\s*Test: (\S+) \.\.\.`)
	outcome    = regexp.MustCompile(`(?m)(?:^|\.\.\.)(passed|FAILED)`)
	testsRow   = regexp.MustCompile(`(?m)^\s+tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*$`)
	skip       = regexp.MustCompile(`\[SKIPPED\].*`)
)

// parseReport reads CUnit's output; what is not there is an error, so that a
// program that ran nothing passes nothing.
func parseReport(out string) (*report, error) {
	r := &report{failed: map[string]string{}}
	begins := testBegins.FindAllStringSubmatchIndex(out, -1)
	for i, b := range begins {
		end := len(out)
		if i+1 < len(begins) {
			end = begins[i+1][0]
		}
		name, body := out[b[2]:b[3]], out[b[1]-len("..."):end]
		switch m := outcome.FindStringSubmatch(body); {
		case m == nil:
			return nil, fmt.Errorf("test %s has no outcome", name)
		case m[1] == "passed":
			r.passed = append(r.passed, name)
		default:
			r.failed[name] = body
		}
	}
	row := testsRow.FindStringSubmatch(out)
	if row == nil {
		return nil, fmt.Errorf("no summary")
	}
	for i, field := range []*int{&r.total, &r.ran, &r.ok, &r.bad, &r.inactive} {
		*field, _ = strconv.Atoi(row[i+1]) // digits, by the expression
	}
	for _, s := range skip.FindAllString(out, -1) {
		r.skips = append(r.skips, strings.TrimSpace(s))
	}
	if len(r.passed) != r.ok || len(r.failed) != r.bad {
		return nil, fmt.Errorf("%d tests passed and %d failed, the summary says %d and %d", len(r.passed), len(r.failed), r.ok, r.bad)
	}
	return r, nil
}

// check says what is wrong with a report on a suite of n tests.
func (r *report) check(n int) error {
	switch {
	case r.total != n || r.ran != n || r.inactive != 0:
		return fmt.Errorf("%d tests, %d ran, %d inactive; want %d", r.total, r.ran, r.inactive, n)
	case len(r.skips) > 0:
		return fmt.Errorf("left out: %q", r.skips)
	case len(r.failed) > 0:
		return fmt.Errorf("failed: %v", r.failed)
	}
	return nil
}

const goodReport = `Suite: Read10
  Test: Simple ...passed
  Test: DpoFua ...passed
  Test: Async ...    [FAILED] expected, as the test wants it
passed

Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites      1      1    n/a      0        0
               tests      3      3      3      0        0
             asserts     20     20     20      0      n/a
`

func TestParseReport(t *testing.T) {
	broken := strings.NewReplacer("it\npassed", "it\nFAILED", "3      3      3      0", "3      3      2      1").Replace(goodReport)
	for name, tt := range map[string]struct {
		out string
		n   int
		ok  bool
	}{
		"good":        {goodReport, 3, true},
		"fewer tests": {goodReport, 4, false},
		"nothing":     {"", 0, false},
		"no summary":  {strings.Split(goodReport, "Run Summary")[0], 3, false},
		"cut short":   {strings.Replace(goodReport, "it\npassed", "it\n", 1), 3, false},
		"left out":    {strings.Replace(goodReport, "DpoFua ...", "DpoFua ...    [SKIPPED] READ10 is not implemented.\n", 1), 3, false},
		"inactive":    {strings.Replace(goodReport, "3      0        0", "3      0        1", 1), 3, false},
		"not run":     {strings.Replace(goodReport, "3      3      3", "3      2      3", 1), 3, false},
		"failed":      {broken, 3, false},
		"no names":    {testBegins.ReplaceAllString(goodReport, ""), 3, false},
	} {
		r, err := parseReport(tt.out)
		if err == nil {
			err = r.check(tt.n)
		}
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
