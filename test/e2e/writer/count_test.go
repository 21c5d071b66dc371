package main

import (
	"path/filepath"
	"testing"
)

// TestCount: blocks are found between holes, and those of another seed are not.
func TestCount(t *testing.T) {
	w := openTemp(t)
	for _, r := range []extent{{0, 3, 1}, {1000, 300, 1}, {1200, 10, 2}, {5000, 1, 1}} {
		if err := w.write(r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.file.WriteAt(fill(w.want, extent{0, 1, 3}), 8000*blockSize+2*sector); err != nil {
		t.Fatal(err)
	}
	if err := w.file.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	for seed, want := range map[int64]int{1: 3 + 290 + 1, 2: 10, 3: 1, 4: 0} {
		if got, err := count(w.file.Name(), seed); err != nil || got != want {
			t.Errorf("seed %d: %d, %v, want %d", seed, got, err, want)
		}
	}
	if _, err := count(filepath.Join(t.TempDir(), "absent"), 1); err == nil {
		t.Error("counted in a file that is not there")
	}
}
