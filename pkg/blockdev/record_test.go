package blockdev_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

const id = "6a8e1c1e-70c5-4b8c-a5b5-0b8f0ce6a1d2"

func TestRecordValidate(t *testing.T) {
	good := blockdev.Record{ID: id, Size: 1 << 20, BlockSize: 512}
	tests := []struct {
		name   string
		change func(*blockdev.Record)
		names  string // what the error must name; empty: no error
	}{
		{"whole", func(*blockdev.Record) {}, ""},
		{"4096", func(r *blockdev.Record) { r.BlockSize = 4096 }, ""},
		{"with meta", func(r *blockdev.Record) { r.Meta = json.RawMessage(`{"a":1}`) }, ""},
		{"no id", func(r *blockdev.Record) { r.ID = "" }, "id"},
		{"upper case", func(r *blockdev.Record) { r.ID = strings.ToUpper(id) }, "id"},
		{"braces", func(r *blockdev.Record) { r.ID = "{" + id + "}" }, "id"},
		{"urn", func(r *blockdev.Record) { r.ID = "urn:uuid:" + id }, "id"},
		{"no dashes", func(r *blockdev.Record) { r.ID = strings.ReplaceAll(id, "-", "") }, "id"},
		{"traversal", func(r *blockdev.Record) { r.ID = "../../../../../../etc/passwd" }, "id"},
		{"slash", func(r *blockdev.Record) { r.ID = id[:35] + "/" }, "id"},
		{"nul", func(r *blockdev.Record) { r.ID = id[:35] + "\x00" }, "id"},
		{"no block size", func(r *blockdev.Record) { r.BlockSize = 0 }, "block size"},
		{"1024", func(r *blockdev.Record) { r.BlockSize = 1024 }, "block size"},
		{"no size", func(r *blockdev.Record) { r.Size = 0 }, "size"},
		{"negative", func(r *blockdev.Record) { r.Size = -512 }, "size"},
		{"half a block", func(r *blockdev.Record) { r.Size = 768 }, "size"},
		{"no JSON", func(r *blockdev.Record) { r.Meta = json.RawMessage(`{secret`) }, "meta"},
		{"long meta", func(r *blockdev.Record) {
			r.Meta = json.RawMessage(`"` + strings.Repeat("x", blockdev.MaxMeta) + `"`)
		}, "meta"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := good
			tt.change(&r)
			err := r.Validate()
			if tt.names == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, blockdev.ErrInvalid) || !strings.Contains(err.Error(), tt.names) {
				t.Fatalf("got %v, want ErrInvalid naming the %s", err, tt.names)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Fatalf("the error repeats meta: %v", err)
			}
		})
	}
}

func TestCheckRange(t *testing.T) {
	const size = 4096
	tests := []struct {
		off, n int64
		ok     bool
	}{
		{0, 0, true}, {0, size, true}, {size, 0, true}, {size - 1, 1, true},
		{size, 1, false}, {0, size + 1, false}, {1, size, false}, {size + 1, 0, false},
		{-1, 1, false}, {0, -1, false}, {math.MinInt64, 0, false},
		{math.MaxInt64, 1, false}, {1, math.MaxInt64, false}, {math.MaxInt64, math.MaxInt64, false},
	}
	for _, tt := range tests {
		err := blockdev.CheckRange(tt.off, tt.n, size)
		if (err == nil) != tt.ok || (err != nil && !errors.Is(err, blockdev.ErrOutOfRange)) {
			t.Errorf("CheckRange(%d, %d): %v, want ok %v", tt.off, tt.n, err, tt.ok)
		}
	}
}
