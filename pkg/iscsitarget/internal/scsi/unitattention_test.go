package scsi

import "testing"

func TestAttentionPrecedence(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, d)
	other := newUnit(t, newDisk(64, 512))
	defer other.Close()
	r.unit.CapacityChanged()
	r.unit.CapacityChanged()
	if err := r.inventory.Add(1, other); err != nil {
		t.Fatal(err)
	}
	r.unit.Reset()
	for _, want := range []string{"6/2903", "6/3F0E", "6/2A09", "good"} {
		r.expect(want, "00")
	}
}

func TestOneReportForAllResets(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	n, err := r.inventory.Attach(NexusConfig{InitiatorPort: "b"})
	if err != nil {
		t.Fatal(err)
	}
	r.unit.Reset()
	for _, want := range []string{"6/2900", "good"} {
		if _, st := run(t, n, "00", nil); text(st) != want {
			t.Errorf("%s, want %s", text(st), want)
		}
	}
	r.expect("6/2903", "00")
}

func TestWhatPassesAttentions(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	r.unit.CapacityChanged()
	for _, cdb := range []string{"12 00 00 00 24 00", "A0 00 00 000000 00000010 00 00"} {
		if _, st := r.do(cdb); st.code != Good {
			t.Errorf("%s: %s", cdb, text(st))
		}
	}
	r.expect("6/2A09", "FF") // before the opcode is looked at
	r.expect("5/2000", "FF")
	r.unit.CapacityChanged()
	r.golden("03 00 00 00 FC 00", "70 00 06 00000000 0A 00000000 2A09")
	r.golden("03 00 00 00 FC 00", "70 00 00 00000000 0A 00000000 0000")
	r.expect("good", "00")
}

func TestAttentionsAreEachNexusOwn(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	other := r.attach(NexusConfig{InitiatorPort: "b"})
	r.unit.CapacityChanged()
	r.expect("6/2A09", "00")
	r.expect("good", "00")
	if _, st := run(t, other, "00", nil); text(st) != "6/2A09" {
		t.Error(text(st))
	}
}
