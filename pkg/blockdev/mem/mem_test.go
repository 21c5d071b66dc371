package mem_test

import (
	"errors"
	"math"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/blockdevtest"
	"github.com/csi-ietd/csi-ietd/pkg/blockdev/mem"
)

func TestDevice(t *testing.T) {
	blockdevtest.DeviceSuite{
		Open: func(t *testing.T, size int64, blockSize int) blockdev.Device {
			d, err := mem.New(size, blockSize)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		Has: blockdevtest.All &^ (blockdevtest.Maps | blockdevtest.Prefetches | blockdevtest.Spaces),
		Grow: func(t *testing.T, d blockdev.Device, size int64) {
			if err := d.(*mem.Device).Grow(size); err != nil {
				t.Fatal(err)
			}
		},
		FailSync: func(_ *testing.T, d blockdev.Device) { d.(*mem.Device).FailSync(errors.New("lost")) },
	}.Run(t)
}

func TestNewInvalid(t *testing.T) {
	for _, tt := range []struct {
		size      int64
		blockSize int
	}{{0, 512}, {-512, 512}, {1000, 512}, {4096, 768}, {4096, 0}, {math.MaxInt64, 512}} {
		if _, err := mem.New(tt.size, tt.blockSize); !errors.Is(err, blockdev.ErrInvalid) {
			t.Errorf("New(%d, %d): %v, want ErrInvalid", tt.size, tt.blockSize, err)
		}
	}
}

// An unmap of a huge disk must cost what was written, not what it spans.
func TestHugeDisk(t *testing.T) {
	const size = 1 << 62
	d, err := mem.New(size, 4096)
	if err != nil {
		t.Fatal(err)
	}
	block := []byte{1, 2, 3}
	if _, err := d.WriteAt(block, size-3); err != nil {
		t.Fatal(err)
	}
	if err := d.Unmap(0, size); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := d.ReadAt(got, size-3); err != nil || got[0]|got[1]|got[2] != 0 {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestGrowShrinks(t *testing.T) {
	d, err := mem.New(1<<20, 512)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Grow(1 << 19); !errors.Is(err, blockdev.ErrShrink) {
		t.Errorf("Grow: %v, want ErrShrink", err)
	}
	if err := d.Grow(1<<20 + 1); !errors.Is(err, blockdev.ErrInvalid) {
		t.Errorf("Grow: %v, want ErrInvalid", err)
	}
}
