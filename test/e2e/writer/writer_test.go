package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openTemp(t *testing.T) *writer {
	t.Helper()
	w, err := open(filepath.Join(t.TempDir(), "file"), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.file.Close() })
	return w
}

// TestObey plays a dialogue.
func TestObey(t *testing.T) {
	w := openTemp(t)
	for _, step := range []struct{ say, want string }{
		{"write 3 300 7", "ok"}, // over the border of a batch
		{"check 3 300 7", "ok"},
		{"check 3 300 8", "block 3 is"},
		{"check 302 2 7", "block 303: end of file"},
		{"write 258 1 9", "ok"},
		{"check 3 300 7", "block 258 is"},
		{"check 258 1 9", "ok"},
		{"writeout", "ok"},
		{"sync", "ok"},
		{"datasync", "ok"},
		{"write 1 x 2", "no such command"},
		{"write 1", "no such command"},
		{"write", "no such command"},
		{"write -1 1 1", "no such command"},
		{"sync 1 2 3", "no such command"},
		{"erase", "no such command"},
		{"", "no such command"},
	} {
		var out strings.Builder
		if err := obey(w, strings.NewReader(step.say+"\n"), &out); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); !strings.HasPrefix(got, step.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%q: answer %q, want %q", step.say, got, step.want)
		}
	}
}

// TestFillDiffers: no two blocks are alike, and each says which it is.
func TestFillDiffers(t *testing.T) {
	seen := map[string]extent{}
	for _, r := range []extent{{0, 2, 0}, {0, 2, 1}, {1 << 31, 2, 1}} {
		p := fill(make([]byte, 2*blockSize), r)
		for i := range r.count {
			block := string(p[i*blockSize:][:blockSize])
			if r.first == 0 && i == 1 && !strings.HasPrefix(block, "seed=0000000") {
				t.Errorf("%v: begins %.40q", r, block)
			}
			if other, ok := seen[block]; ok {
				t.Errorf("block %d of %v is one of %v", i, r, other)
			}
			seen[block] = r
		}
	}
}

// TestErrorsAreTold: what the kernel refuses is in the answer.
func TestErrorsAreTold(t *testing.T) {
	w := openTemp(t)
	readOnly, err := os.Open(w.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	w.file.Close()
	for _, command := range []string{"write 0 1 1", "check 0 1 1", "writeout", "sync", "datasync"} {
		if err := execute(w, command); err == nil {
			t.Errorf("%s on a closed file succeeded", command)
		}
	}
	w.file = readOnly
	if err := execute(w, "write 0 1 1"); err == nil {
		t.Error("wrote to a file that is open for reading")
	}
}
