package scsi

import (
	"bytes"
	"fmt"
	"testing"
)

const (
	cachingOff  = "08 12 0000 00000000 00000000 00000000 00000000"
	controlMore = "0A 0A 04 10 0800 0000 0000 0000" // D_SENSE and SWP
	controlTask = "0A 0A 20 16 0040 0000 0000 0000" // TST 001b, QERR 11b, TAS
)

func TestModeSelect(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d)
	other := r.attach(NexusConfig{InitiatorPort: "iqn.j,i,0x2"})
	r.expect("good", "2A 00 00000000 00 0001 00", pattern(512)...)
	r.expect("good", "15 10 0000 18 00", unhex(t, "00000000"+cachingOff)...)
	if !bytes.Equal(d.now, d.stable) {
		t.Error("the write cache is off and holds data")
	}
	r.golden("1A 08 08 00 FF 00", "17 00 10 00"+cachingOff)
	r.golden("1A 08 88 00 FF 00", "17 00 10 00"+cachingHex)
	r.expect("good", "2A 00 00000002 00 0001 00", pattern(512)...)
	if !bytes.Equal(d.now, d.stable) {
		t.Error("a write without write cache is not stable")
	}
	if _, st := run(t, other, "00", nil); text(st) != "6/2A01" {
		t.Errorf("another initiator: %s", text(st))
	}
	r.expect("good", "00")

	r.expect("good", "55 10 0000000000 0020 00", unhex(t, "00000000 0000 0008 00000040 00000200"+controlMore)...)
	r.golden("1A 08 0A 00 FF 00", "0F 00 90 00"+controlMore)
	r.expect("7/2700", "2A 00 00000000 00 0001 00", pattern(512)...)
	r.expect("good", "55 10 0000000000 0020 00", unhex(t, "00000000 0000 0008 00000000 00000200"+controlHex)...)
	r.expect("good", "2A 00 00000000 00 0001 00", pattern(512)...)
	r.expect("good", "15 10 0000 00 00")
	r.expect("good", "55 10 0000000000 0008 00", make([]byte, 8)...)
	r.expect("good", "55 10 0000000000 0018 00", unhex(t, "00000000 0100 0010 0000000000000040 00000000 00000200")...)
	r.unit.Reset()
	r.expect("6/2903", "00")
	r.golden("1A 08 08 00 FF 00", "17 00 10 00"+cachingHex)
}

func TestModeSelectRefusals(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	r.expect("5/2400 byte 1 bit 4", "15 00 0000 18 00")
	r.expect("5/2400 byte 1 bit 0", "15 11 0000 18 00") // nothing keeps them
	for list, want := range map[string]string{
		"000000":                                           "5/1A00",
		"00000000 08":                                      "5/1A00",
		"00000000 08 13 0000":                              "5/2600 param 5 bit 7",
		"00000000 09 02 0000":                              "5/2600 param 4 bit 5",
		"00000000 48 12 0000":                              "5/2600 param 4 bit 5",
		"00000000 08 12 04":                                "5/1A00",
		"00000000 08 12 05" + zeros(17):                    "5/2600 param 6 bit 7",
		"00000000 0A 0A 00 00" + zeros(8):                  "5/2600 param 7 bit 7", // queue algorithm
		"00000000 0A 0A 00 14" + zeros(8):                  "5/2600 param 7 bit 2", // QERR 10b
		"00000000 0A 0A 40 10" + zeros(8):                  "5/2600 param 6 bit 7", // TST 010b
		"00000000 0A 0A 00 10 10" + zeros(7):               "5/2600 param 8 bit 7", // UA_INTLCK_CTRL 01b
		"00000000" + cachingOff + "0A 0A 00 00" + zeros(8): "5/2600 param 27 bit 7",
		"00000007":                                         "5/2600 param 3 bit 7",
		"00000008 00000040":                                "5/1A00",
		"00000008 00000041 00000200":                       "5/2600 param 4 bit 7",
		"00000008 00000040 00001000" + cachingOff:          "5/2600 param 9 bit 7",
	} {
		b := unhex(t, list)
		r.expect(want, fmt.Sprintf("15 10 0000 %02X 00", len(b)), b...)
		r.golden("1A 08 08 00 FF 00", "17 00 10 00"+cachingHex)
	}
}

func zeros(n int) string { return fmt.Sprintf("%0*d", 2*n, 0) }

// TestSavedPages: what is saved holds after a reset and a restart, what is not
// saved does not; a save that fails changes nothing.
func TestSavedPages(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, keptDisk{d})
	r.golden("1A 08 08 00 FF 00", "17 00 10 00 88 12 04")
	r.golden("1A 08 1C 00 FF 00", "0F 00 10 00"+exceptionsHex)
	r.expect("good", "15 11 0000 18 00", unhex(t, "00000000"+cachingOff)...)
	r.expect("good", "15 10 0000 10 00", unhex(t, "00000000"+controlMore)...)
	r.golden("1A 08 C8 00 FF 00", "17 00 90 00 88 12 00")
	r.golden("1A 08 CA 00 FF 00", "0F 00 90 00 8A 0A 00 10 0000")
	d.markErr = errDisk
	r.expect("4/4400", "15 11 0000 18 00", unhex(t, "00000000"+cachingHex)...)
	d.markErr = nil
	r.golden("1A 08 08 00 FF 00", "17 00 90 00 88 12 00")

	again := newRig(t, keptDisk{d})
	again.golden("1A 08 08 00 FF 00", "17 00 10 00 88 12 00")
	again.golden("1A 08 88 00 FF 00", "17 00 10 00 88 12 04")
	d.state = []byte("{")
	if _, err := NewUnit(UnitConfig{Device: keptDisk{d}}); err == nil {
		t.Error("a damaged state is taken for none")
	}
}

// QERR, TAS and TST are changeable and savable (SPC-4 section 7.5.8).
func TestTaskPolicy(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, keptDisk{d})
	if p := r.unit.TaskPolicy(); p != (TaskPolicy{}) {
		t.Errorf("at first %+v", p)
	}
	r.expect("good", "15 11 0000 10 00", unhex(t, "00000000"+controlTask)...)
	want := TaskPolicy{QueueError: AbortOfNexus, TaskAborted: true, SetPerNexus: true}
	if p := r.unit.TaskPolicy(); p != want {
		t.Errorf("selected %+v", p)
	}
	r.expect("good", "15 10 0000 10 00", unhex(t, "00000000 0A 0A 00 12"+zeros(8))...)
	if p := r.unit.TaskPolicy(); p != (TaskPolicy{QueueError: AbortTaskSet}) {
		t.Errorf("selected %+v", p)
	}
	r.unit.Reset()
	if p := r.unit.TaskPolicy(); p != want {
		t.Errorf("after a reset %+v", p)
	}
	again := newRig(t, keptDisk{d})
	if p := again.unit.TaskPolicy(); p != want {
		t.Errorf("after a restart %+v", p)
	}
	again.golden("1A 08 0A 00 FF 00", "0F 00 10 00 8A"+controlTask[2:])
}
