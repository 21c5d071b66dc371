package scsi

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

func TestThirdPartyPage(t *testing.T) {
	zeros := func(n int) string { return strings.Repeat("00", n) }
	rod := func(kind, flags string) string { return kind + flags + zeros(59) }
	want := func(tokenBlocks, optimal, granularity string) string {
		return `00 8F 01F8
			0000 0020 000000000000 0040 00000258 0000003C ` + tokenBlocks + optimal + `
			0001 0014 10 83 05 00 01 10 11 1C 84 07 00 01 03 04 05 07 08 000000
			0004 001C 00000000 0040 0040 00000F00 00000000` + zeros(12) + `
			0008 0004 02 02 E4 00
			000C 0004 0002 FFFF
			0106 005C 00` + zeros(11) + `00000000 FFFFFFFF 00000258` + zeros(18) + `0030
				00 00 002C 0000 0000 0000000040000000 0000000004000000 0000000004000000 0000000004000000 0000000000000000
			0108 0104 0000 0100 ` + rod("00800000", "01") + rod("00800001", "03") + rod("0080FFFF", "01") + rod("FFFF0001", "02") + `
			8001 0020 00000010 00000010 04000000 ` + granularity + ` 00` + zeros(18)
	}
	for _, x := range []struct {
		block       int
		tokenBlocks string
		optimal     string
		granularity string
	}{
		{512, "0000000000200000", "0000000000020000", "09"},
		{4096, "0000000000040000", "0000000000004000", "0C"},
	} {
		r := newRig(t, newDisk(64, x.block))
		page := want(x.tokenBlocks, x.optimal, x.granularity)
		r.golden("12 01 8F 04 00 00", page)
		if data, _ := r.do("12 01 8F 04 00 00"); len(data) != len(unhex(t, page)) {
			t.Errorf("%d bytes, %d in the golden ones", len(data), len(unhex(t, page)))
		}
	}
}

// tpcBody is the body of a descriptor of VPD page 8Fh.
func (r *rig) tpcBody(kind uint16) []byte {
	r.Helper()
	page, _ := r.do("12 01 8F 04 00 00")
	for b := page[4:]; len(b) > 0; {
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if binary.BigEndian.Uint16(b) == kind {
			return b[4:n]
		}
		b = b[n:]
	}
	r.Fatalf("no descriptor %#x", kind)
	return nil
}

// The limits are those that commands are held to: at the limit they do, above it
// they are refused.
func TestThirdPartyLimitsAreEnforced(t *testing.T) {
	r := newRig(t, newDisk(256, 4096))
	parameters := r.tpcBody(tpcParameters)
	cscds, segments := int(binary.BigEndian.Uint16(parameters[4:])), int(binary.BigEndian.Uint16(parameters[6:]))
	longest := int(binary.BigEndian.Uint32(parameters[8:]))
	list := func(cscds, segments int) []byte {
		return list1(7, 0, []byte(strings.Repeat(string(byNAA(naaAbsent)), cscds)),
			[]byte(strings.Repeat(string(blockToBlock(0, 0xFFFF, 0xFFFF, 1, 2, 9)), segments)))
	}
	full := list(cscds, segments)
	if len(full) != 16+longest {
		t.Errorf("a full list has %d bytes of descriptors, the page says %d", len(full)-16, longest)
	}
	r.expect("good", copyCDB(0, len(full)), full...)
	for want, list := range map[string][]byte{"5/2606": list(cscds+1, 1), "5/2608": list(1, segments+1), "5/1A00": list(cscds, segments+1)} {
		r.expect(want, copyCDB(0, len(list)), list...)
	}

	rod := r.tpcBody(tpcRODLimits)
	ranges := make([]uint64, 0, 2*int(binary.BigEndian.Uint16(rod[6:])))
	for i := range cap(ranges) / 2 {
		ranges = append(ranges, uint64(2*i), 1)
	}
	populate := func(want string, timeout uint32, pairs ...uint64) {
		t.Helper()
		list := populateList(timeout, 0, pairs...)
		r.expect(want, tokenCDB(0x10, 1, len(list)), list...)
	}
	populate("good", 0, ranges...)
	populate("5/2608", 0, append(ranges, 255, 1)...)
	timeout := binary.BigEndian.Uint32(rod[8:])
	populate("good", timeout, 1, 1)
	populate("5/2600 param 4 bit 7", timeout+1, 1, 1)
	r.unit.blocks.Store(1 << 40)
	blocks := binary.BigEndian.Uint64(rod[16:])
	populate("good", 0, 1, blocks)
	populate("5/2600 param 24 bit 7", 0, 1, blocks+1)
	if last := r.unit.tokens.all[0]; last.timeout != time.Duration(binary.BigEndian.Uint32(rod[12:]))*time.Second {
		t.Errorf("default timeout %v", last.timeout)
	}

	longestSegment := binary.BigEndian.Uint32(r.tpcBody(tpcOperations)[8:])
	over := list1(7, 0, nil, blockToBlock(0, 0xFFFF, 0xFFFF, uint16(longestSegment/4096)+1, 0, 1<<30))
	r.expect("A/2600", copyCDB(0, len(over)), over...)
	at := list1(7, 0, nil, blockToBlock(0, 0xFFFF, 0xFFFF, uint16(longestSegment/4096), 0, 1<<30))
	r.expect("A/0D02", copyCDB(0, len(at)), at...) // admitted, but the disk is not that long
}

// The page names each service action that is answered, and no other.
func TestThirdPartyCommands(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	named := map[[2]byte]bool{}
	for b := r.tpcBody(tpcCommands)[1:]; len(b) > 1 && b[0] != 0; b = b[2+b[1]:] {
		for _, action := range b[2 : 2+b[1]] {
			named[[2]byte{b[0], action}] = true
		}
	}
	if len(named) != 12 {
		t.Errorf("%d commands", len(named))
	}
	for _, opcode := range []byte{0x83, 0x84} {
		for action := range byte(32) {
			_, st := perform(r.nexus.Decode([8]byte{}, Simple, []byte{opcode, action, 0xFF, 0xFF, 0xFF, 0xFF, 15: 0}), nil)
			if answered := text(st) != "5/2400 byte 1 bit 4"; answered != named[[2]byte{opcode, action}] {
				t.Errorf("%02X/%02X: %s, named %v", opcode, action, text(st), !answered)
			}
		}
	}
}
