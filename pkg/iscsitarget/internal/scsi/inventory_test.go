package scsi

import (
	"sync"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

func TestInventory(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	u := newUnit(t, newDisk(8, 512))
	defer u.Close()
	if r.inventory.Add(0, u) == nil || r.inventory.Add(0x4000, u) == nil {
		t.Error("a LUN was given twice, or one that cannot be")
	}
	if err := r.inventory.Add(7, u); err != nil {
		t.Fatal(err)
	}
	if r.inventory.Lookup([8]byte{0, 7}) != u || r.inventory.Lookup([8]byte{0x40, 7}) != u {
		t.Error("the unit is not where it was added")
	}
	if r.inventory.Lookup([8]byte{0, 8}) != nil || r.inventory.Lookup([8]byte{1, 7}) != nil {
		t.Error("a unit is where none was added")
	}
	r.expect("6/3F0E", "00")
	seven := [8]byte{0, 7}
	for _, want := range []string{"6/2900", "6/3F0E", "good"} {
		if c := r.nexus.Decode(seven, Simple, parse(t, "00")); text(c.Status) != want {
			t.Errorf("new unit: %s, want %s", text(c.Status), want)
		}
	}
	if r.inventory.Remove(7) != u || r.inventory.Remove(7) != nil || r.inventory.Lookup(seven) != nil {
		t.Error("the unit was not removed once")
	}
	r.expect("6/3F0E", "00")
	if c := r.nexus.Decode(seven, Simple, parse(t, "00")); text(c.Status) != "5/2500" {
		t.Error(text(c.Status))
	}
	if len(u.itls) != 0 || len(u.durability.attached) != 0 {
		t.Error("the removed unit still knows the nexus")
	}
}

func TestDetach(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	c := r.nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00000005 00 0002 00"))
	r.nexus.Detach()
	r.nexus.Detach()
	if len(r.unit.itls) != 0 || len(r.unit.durability.attached) != 0 || len(r.inventory.nexuses) != 0 {
		t.Error("the nexus is still known")
	}
	r.expect("5/2500", "00")
	if st := c.ReadAt(make([]byte, 1024), 0); st.code != Good {
		t.Errorf("a command from before: %s", text(st))
	}
}

func TestAttachFailsWhole(t *testing.T) {
	good, bad := newDisk(8, 512), newDisk(8, 512)
	r := newRig(t, markedDisk{good})
	u := newUnit(t, markedDisk{bad})
	defer u.Close()
	if err := r.inventory.Add(1, u); err != nil {
		t.Fatal(err)
	}
	c := (*r.nexus.luns.Load())[1]
	if err := c.unit.durability.begin(true); err != nil {
		t.Fatal(err)
	}
	c.unit.durability.end()
	bad.set(func() { bad.markErr = errDisk })
	if _, err := r.inventory.Attach(NexusConfig{Stage: blockdev.Stage{Initiator: "b", Nonce: "1"}}); err == nil {
		t.Error("attached without a durable stage")
	}
	if len(r.unit.itls) != 1 || len(u.itls) != 1 {
		t.Error("half attached")
	}
	other := newRig(t, newDisk(8, 512))
	other.attach(NexusConfig{Stage: blockdev.Stage{Initiator: "c", Nonce: "1"}})
	if other.inventory.Add(1, u) == nil || len(u.itls) != 1 || other.inventory.Lookup([8]byte{0, 1}) != nil {
		t.Error("added without a durable stage")
	}
	bad.set(func() { bad.markErr = nil })
}

func TestBadDevices(t *testing.T) {
	for _, size := range []int{0, 256, 511, 520, 1536, 8192} {
		if _, err := NewUnit(UnitConfig{Device: &disk{block: size}}); err == nil {
			t.Errorf("block length %d was accepted", size)
		}
	}
}

// TestEverythingAtOnce is for the race detector.
func TestEverythingAtOnce(t *testing.T) {
	d := newDisk(64, 512)
	r := newRig(t, markedDisk{d})
	other := newUnit(t, newDisk(8, 512))
	defer other.Close()
	work := []func(n *Nexus){
		func(n *Nexus) { run(t, n, "2A 00 00000004 00 0004 00", pattern(2048)) },
		func(n *Nexus) { run(t, n, "2A 08 00000004 00 0004 00", pattern(2048)) },
		func(n *Nexus) { run(t, n, "28 08 00000004 00 0004 00", nil) },
		func(n *Nexus) { run(t, n, "35 00 00000000 00 0000 00", nil) },
		func(n *Nexus) { run(t, n, "A0 00 00 000000 00000100 00 00", nil) },
		func(n *Nexus) { run(t, n, "12 01 83 00 FF 00", nil) },
		func(*Nexus) { r.unit.Reset(); r.unit.CapacityChanged() },
		func(*Nexus) { _ = r.inventory.Add(1, other); r.inventory.Remove(1) },
		func(*Nexus) { _ = r.inventory.Forget("b") },
		func(*Nexus) { d.set(func() { d.syncErr = errDisk }) },
	}
	var wg sync.WaitGroup
	for _, f := range work {
		wg.Go(func() {
			for i := range 20 {
				n, err := r.inventory.Attach(NexusConfig{Stage: blockdev.Stage{Initiator: "b", Nonce: string(rune('a' + i))}})
				if err != nil {
					t.Error(err)
					return
				}
				f(n)
				f(n)
				n.Detach()
			}
		})
	}
	wg.Wait()
}
