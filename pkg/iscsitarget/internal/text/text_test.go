package text

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	long := strings.Repeat("v", maxValue)
	for _, tt := range []struct {
		in   string
		want []Pair
	}{
		{"", nil},
		{"\x00\x00\x00", nil},
		{"A=1\x00", []Pair{{"A", "1"}}},
		{"A=1", []Pair{{"A", "1"}}},
		{"A=\x00B=2\x00", []Pair{{"A", ""}, {"B", "2"}}},
		{"A=b=c\x00", []Pair{{"A", "b=c"}}},
		{"A=1\x00\x00B=2\x00\x00\x00", []Pair{{"A", "1"}, {"B", "2"}}},
		{"X-com.example=\xff\xfe\x00", []Pair{{"X-com.example", "\xff\xfe"}}},
		{"Z" + strings.Repeat("k", 62) + "=1\x00", []Pair{{"Z" + strings.Repeat("k", 62), "1"}}},
		{"A=" + long + "\x00", []Pair{{"A", long}}},
	} {
		got, err := Parse([]byte(tt.in))
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%.40q: %v, %v", tt.in, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"no '='": "A\x00", "no key": "=1\x00", "small letter": "a=1\x00", "blank": "A B=1\x00", "NUL in key": "A\x00=1\x00",
		"byte above 127": "A\xe9=1\x00", "64 bytes": "Z" + strings.Repeat("k", 63) + "=1\x00",
		"8 KiB key": strings.Repeat("K", 8192) + "=1\x00", "long value": "A=" + strings.Repeat("v", maxValue+1) + "\x00",
		"twice": "A=1\x00B=1\x00A=1\x00", "129 keys": keys(maxPairs + 1),
	} {
		if got, err := Parse([]byte(in)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %d pairs, %v", name, len(got), err)
		} else if len(err.Error()) > 300 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
	if got, err := Parse([]byte(keys(maxPairs))); err != nil || len(got) != maxPairs {
		t.Errorf("%d keys: %v", maxPairs, err)
	}
}

func keys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "K%d=\x00", i)
	}
	return b.String()
}

// A text cut short at any byte is an error, or pairs that the whole has too, but
// for the last one's value.
func TestParseTruncated(t *testing.T) {
	whole := "InitiatorName=iqn.i\x00SessionType=Normal\x00AuthMethod=CHAP,None\x00"
	want, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) {
		got, err := Parse([]byte(whole[:n]))
		if err != nil {
			continue
		}
		for i, p := range got {
			if p.Key != want[i].Key || !strings.HasPrefix(want[i].Value, p.Value) || i < len(got)-1 && p != want[i] {
				t.Errorf("%d bytes: %v", n, got)
			}
		}
	}
}

func TestGet(t *testing.T) {
	pairs := []Pair{{"A", ""}, {"B", "2"}}
	for key, want := range map[string]string{"A": "", "B": "2"} {
		if v, ok := Get(pairs, key); !ok || v != want {
			t.Errorf("%s: %q, %t", key, v, ok)
		}
	}
	if _, ok := Get(pairs, "a"); ok {
		t.Error("keys are compared with their case")
	}
}

// FuzzParse: what is parsed, written and parsed again is the same, and within the
// limits.
func FuzzParse(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.i\x00SessionType=Normal\x00"))
	f.Add([]byte("A=1\x00\x00B==\x00C"))
	f.Add([]byte(keys(200)))
	f.Fuzz(func(t *testing.T, in []byte) {
		pairs, err := Parse(in)
		if err != nil {
			if !errors.Is(err, ErrSyntax) || len(err.Error()) > 300 {
				t.Errorf("error of %d bytes: %v", len(err.Error()), err)
			}
			return
		}
		out := Encode(pairs)
		again, err := Parse(out)
		if err != nil || !slices.Equal(pairs, again) || len(pairs) > maxPairs || len(out) > len(in)+1 {
			t.Errorf("%q became %q: %v", pairs, again, err)
		}
	})
}

// The one standard key that begins with a small letter gets through (RFC 7143
// section 13.24).
func TestProtocolLevelIsAKey(t *testing.T) {
	pairs, err := Parse([]byte("iSCSIProtocolLevel=2\x00"))
	if v, _ := Get(pairs, "iSCSIProtocolLevel"); err != nil || v != "2" {
		t.Errorf("%v, %v", pairs, err)
	}
	if _, err := Parse([]byte("iSCSIprotocolLevel=2\x00")); err == nil {
		t.Error("another one does")
	}
}
