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

// A reset makes old news of what it covers, and of nothing else (SAM-5 section
// 5.14).
func TestResetCoversAttentions(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	tell := func() {
		for _, a := range []attention{attentionNexusLoss, attentionModeParameters, attentionTasksCleared, attentionCapacity, attentionRegistrationsPreempted} {
			r.unit.establish(a)
		}
	}
	for _, tt := range []struct {
		happens func()
		want    []string
	}{
		{r.unit.Reset, []string{"6/2903", "6/2A09", "6/2A05", "good"}},
		{r.unit.PowerOn, []string{"6/2900", "6/2A09", "6/2A05", "good"}},
		{r.nexus.Lose, []string{"6/2907", "6/2A09", "6/2A01", "6/2A05", "good"}},
	} {
		tell()
		tt.happens()
		for _, want := range tt.want {
			r.expect(want, "00")
		}
	}
	r.unit.Reset()
	r.unit.establish(attentionTasksCleared) // it came afterwards
	r.expect("6/2903", "00")
	r.expect("6/2F00", "00")
	r.expect("good", "00")
}

// A nexus that comes back is told of its loss, unless a reset or a power on, which
// it missed, is more (SAM-5 section 6.3.4).
func TestAttentionAfterNexusLoss(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	first := func(port string) string {
		n, err := r.inventory.Attach(NexusConfig{InitiatorPort: port})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Detach()
		_, st := run(t, n, "00", nil)
		_, again := run(t, n, "00", nil)
		if text(again) != "good" {
			t.Errorf("%s: then %s", port, text(again))
		}
		return text(st)
	}
	for i, tt := range []struct {
		port, want string
		before     func()
	}{
		{"a", "6/2900", func() {}},
		{"a", "6/2907", func() {}},
		{"b", "6/2900", func() {}},
		{"a", "6/2900", r.unit.Reset},
		{"a", "6/2907", func() {}},
		{"a", "6/2900", r.unit.PowerOn},
		{"b", "6/2900", func() {
			for i := range maxDeparted {
				first(string(rune(0x1000 + i)))
			}
		}},
	} {
		tt.before()
		if got := first(tt.port); got != tt.want {
			t.Errorf("%d: %s is told %s, want %s", i, tt.port, got, tt.want)
		}
	}
	if len(r.unit.departed) > maxDeparted {
		t.Errorf("%d nexuses are remembered", len(r.unit.departed))
	}
}
