package scsi

import (
	"bytes"
	"context"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func TestWriteSame(t *testing.T) {
	ones, zeros := pattern(512), make([]byte, 512)
	for _, x := range []struct {
		name, cdb string
		block     []byte
		lba, n    int
		unmaps    bool // whatever the block
	}{
		{"10", "41 00 00000004 00 0003 00", ones, 4, 3, false},
		{"10 to the end", "41 00 00000004 00 0000 00", ones, 4, 1496, false},
		{"10, zeros", "41 00 00000004 00 0003 00", zeros, 4, 3, false},
		{"10, unmap", "41 08 00000004 00 0003 00", zeros, 4, 3, false},
		{"10, unmap ones", "41 08 00000004 00 0003 00", ones, 4, 3, true},
		{"10, obsolete bit", "41 01 00000004 00 0003 00", ones, 4, 3, false},
		{"16", "93 00 0000000000000001 000005DB 00 00", ones, 1, 1499, false},
		{"16 to the end", "93 00 0000000000000001 00000000 1F 00", ones, 1, 1499, false},
		{"16, NDOB", "93 01 0000000000000001 000005DB 00 00", nil, 1, 1499, false},
		{"16, NDOB, unmap", "93 09 0000000000000001 000005DB 00 00", nil, 1, 1499, false},
		{"16, unmap", "93 08 0000000000000001 000005DB 00 00", zeros, 1, 1499, false},
		{"16, unmap ones", "93 08 0000000000000001 00000002 00 00", ones, 1, 2, true},
	} {
		d := newDisk(1500, 512)
		for kind, dev := range map[string]blockdev.Device{
			"thin": thinDisk{d}, "zeroes": struct {
				thinDisk
				zeroDisk2
			}{thinDisk{d}, zeroDisk2{d}},
		} {
			before := bytes.Clone(d.now)
			r := newRig(t, dev)
			r.expect("good", x.cdb, x.block...)
			block := x.block
			if block == nil || x.unmaps {
				block = zeros
			}
			t.Log(x.name, kind)
			holds(t, d, before, x.lba, bytes.Repeat(block, x.n))
		}
	}
}

func TestWriteSameIn4096(t *testing.T) {
	d := newDisk(100, 4096)
	before, block := bytes.Clone(d.now), pattern(4096)
	newRig(t, d).expect("good", "93 00 0000000000000001 00000050 00 00", block...)
	holds(t, d, before, 1, bytes.Repeat(block, 0x50))
}

func TestWriteSameRefusals(t *testing.T) {
	d := newDisk(64, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, thinDisk{d})
	block := pattern(512)
	for _, x := range []struct{ cdb, want string }{
		{"41 20 00000004 00 0003 00", "5/2400 byte 1 bit 7"},
		{"93 10 0000000000000001 00000001 00 00", "5/2400 byte 1 bit 4"},
		{"93 18 0000000000000001 00000001 00 00", "5/2400 byte 1 bit 4"},
		{"93 02 0000000000000001 00000001 00 00", "5/2400 byte 1 bit 2"},
		{"41 04 00000001 00 0001 00", "5/2400 byte 1 bit 2"},
		{"41 00 00000040 00 0001 00", "5/2100"},
		{"41 00 00000040 00 0000 00", "5/2100"},
		{"93 00 8000000000000000 00000000 00 00", "5/2100"},
		{"93 00 FFFFFFFFFFFFFFFF FFFFFFFF 00 00", "5/2100"},
	} {
		r.expect(x.want, x.cdb, block...)
	}
	r.expect("5/0E03", "93 00 0000000000000001 00000001 00 00", block[:511]...)
	holds(t, d, before, 0, nil)
	r.unit.blocks.Store(1 << 40)
	r.expect("5/2400 byte 10 bit 7", "93 00 0000000000000001 00200001 00 00", block...)
	r.expect("5/2400 byte 10 bit 7", "93 00 0000000000000001 00000000 00 00", block...)
	r.expect("5/2400 byte 7 bit 7", "41 00 00000001 00 0000 00", block...)
	thick := newRig(t, newDisk(64, 512))
	thick.expect("5/2400 byte 1 bit 3", "93 08 0000000000000001 00000001 00 00", block...)
	thick.expect("5/2400 byte 1 bit 3", "41 08 00000001 00 0001 00", block...)
}

func TestWriteSameStopsBetweenSteps(t *testing.T) {
	d := newDisk(1500, 512)
	r := newRig(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := bytes.Clone(d.now)
	d.writing = cancel // while the first step is under way
	c := r.nexus.Decode([8]byte{}, Simple, parse(t, "93 00 0000000000000001 000005DB 00 00"))
	if _, st := c.Execute(ctx, pattern(512)); st != StatusTaskAborted {
		t.Error(text(st))
	}
	// The first step ends at a multiple of its size.
	holds(t, d, before, 1, bytes.Repeat(pattern(512), 511))
}
