package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"
)

// unmapParams is UNMAP's parameter list for pairs of LBA and number of blocks.
func unmapParams(pairs ...uint64) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(6+len(pairs)*8))
	b = binary.BigEndian.AppendUint16(b, uint16(len(pairs)*8))
	b = append(b, 0, 0, 0, 0)
	for i := 0; i < len(pairs); i += 2 {
		b = binary.BigEndian.AppendUint64(b, pairs[i])
		b = binary.BigEndian.AppendUint32(b, uint32(pairs[i+1]))
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

func unmapCDB(n int) string { return fmt.Sprintf("42 00 00000000 00 %04X 00", n) }

func TestUnmap(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, thinDisk{d})
	want := bytes.Clone(d.now)
	p := unmapParams(3, 2, 0, 1, 63, 1, 10, 0, 64, 0)
	r.expect("good", unmapCDB(len(p)), p...)
	clear(want[3*512 : 5*512])
	clear(want[:512])
	clear(want[63*512:])
	holds(t, d, want, 0, nil)
}

func TestUnmapRefusals(t *testing.T) {
	d := newDisk(64, 512)
	before := bytes.Clone(d.now)
	r := newRig(t, thinDisk{d})
	tooMany := unmapParams(make([]uint64, 2*257)...)
	long := func(p []byte, n uint16) []byte { binary.BigEndian.PutUint16(p[2:], n); return p }
	for _, x := range []struct {
		cdb    string
		params []byte
		want   string
	}{
		{unmapCDB(40), unmapParams(1, 1, 64, 1), "5/2100"},
		{unmapCDB(24), unmapParams(1<<63, 1), "5/2100"},
		{unmapCDB(24), unmapParams(1<<64-1, 1<<32-1), "5/2100"},
		{unmapCDB(24), unmapParams(65, 0), "5/2100"},
		{unmapCDB(len(tooMany)), tooMany, "5/2600 param 2 bit 7"},
		{unmapCDB(7), unmapParams(1, 1), "5/1A00"},
		{unmapCDB(24), unmapParams(1, 1)[:7], "5/1A00"},
		{unmapCDB(24), nil, "5/1A00"},
		{unmapCDB(0), nil, "good"},
		{unmapCDB(8), unmapParams(), "good"},
		{unmapCDB(23), unmapParams(1, 1)[:23], "good"},            // cut short
		{unmapCDB(24), long(unmapParams(1, 1), 15), "good"},       // says so itself
		{"42 01 00000000 00 0018 00", nil, "5/2400 byte 1 bit 0"}, // ANCHOR
	} {
		r.expect(x.want, x.cdb, x.params...)
	}
	holds(t, d, before, 0, nil)
	r.unit.blocks.Store(1 << 40)
	p := unmapParams(0, 1<<19, 1<<20, 1<<19+1)
	r.expect("5/2600 param 32 bit 7", unmapCDB(len(p)), p...)
	newRig(t, newDisk(64, 512)).expect("5/2000", unmapCDB(24), unmapParams(1, 1)...)
}

func TestUnmapParametersShorterThanTheyShould(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, thinDisk{d})
	want := bytes.Clone(d.now)
	c := r.nexus.Decode([8]byte{}, Simple, parse(t, unmapCDB(40)))
	if _, st := c.Execute(context.Background(), unmapParams(1, 1, 5, 1)[:30]); st.code != Good {
		t.Error(text(st))
	}
	clear(want[512:1024])
	holds(t, d, want, 0, nil)
}
