package scsi

import (
	"fmt"
	"testing"
)

func TestTargetPortGroups(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	other := r.attach(NexusConfig{InitiatorPort: "iqn.j,i,0x2", TPGT: 1})
	r.golden("A3 0A 00000000 00000100 00 00", "0000000C 00 0F 0001 00 00 00 01 0000 0001")
	r.golden("A3 2A 00000000 00000100 00 00", "00000010 10 00 0000 00 0F 0001 00 00 00 01 0000 0001")
	r.golden("A3 0A 00000000 00000003 00 00", "000000")
	r.expect("5/2400 byte 1 bit 7", "A3 4A 00000000 00000100 00 00")
	set := func(state int) {
		t.Helper()
		r.expect("good", "A4 0A 00000000 00000008 00 00", 0, 0, 0, 0, byte(state), 0, 0, 1)
	}
	set(2)
	r.golden("A3 0A 00000000 00000100 00 00", "0000000C 02 0F 0001 00 01 00 01 0000 0001")
	if _, st := run(t, other, "00", nil); text(st) != "6/2A06" {
		t.Errorf("another initiator: %s", text(st))
	}
	for state, want := range map[int]string{2: "2/040B", 3: "2/040C"} {
		set(state)
		for _, cdb := range []string{"00", "28 00 00000000 00 0001 00", "2A 00 00000000 00 0001 00", "25", "35"} {
			r.expect(want, cdb, make([]byte, 512)...)
		}
		for _, cdb := range []string{"12 00 00 00 24 00", "03 00 00 00 12 00", "A0 00 00 000000 00000100 00 00"} {
			if _, st := r.do(cdb); st.code != Good {
				t.Errorf("state %d: %s: %s", state, cdb, text(st))
			}
		}
		if _, st := r.do("1A 00 08 00 FF 00"); (st.code == Good) != (state == 2) {
			t.Errorf("state %d: MODE SENSE: %s", state, text(st))
		}
	}
	for state := range 2 {
		set(state)
		r.expect("good", "00")
		if _, st := r.do("28 00 00000000 00 0001 00"); st.code != Good {
			t.Errorf("state %d: %s", state, text(st))
		}
	}
}

func TestSetTargetPortGroupsRefusals(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	for list, want := range map[string]string{
		"":                           "good",
		"00000000":                   "good",
		"000000":                     "5/1A00",
		"00000000 0200":              "5/1A00",
		"00000000 04000001":          "5/2600 param 4 bit 3",
		"00000000 0E000001":          "5/2600 param 4 bit 3",
		"00000000 02000002":          "5/2600 param 6 bit 7",
		"00000000 02000001 00000001": "5/2600 param 10 bit 7",
		zeros(72):                    "5/2400 byte 6 bit 7",
	} {
		b := unhex(t, list)
		r.expect(want, fmt.Sprintf("A4 0A 00000000 %08X 00 00", len(b)), b...)
		r.golden("A3 0A 00000000 00000006 00 00", "0000000C 00 0F")
	}
}
