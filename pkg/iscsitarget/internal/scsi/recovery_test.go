package scsi

import (
	"bytes"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// stickyDisk fails as a file does: after one Sync that failed all others do,
// and it goes on showing what it lost, until it is recovered.
type stickyDisk struct {
	markedDisk
	state *stickiness
}

type stickiness struct {
	lost     bool
	bad      bool // Recover fails as well
	recovers int
}

func (d stickyDisk) Sync() error {
	if d.state.lost {
		return blockdev.ErrLostWrites
	}
	err := d.markedDisk.Sync()
	d.state.lost = err != nil
	return err
}

func (d stickyDisk) Recover() error {
	d.state.recovers++
	if d.state.bad {
		return errDisk
	}
	d.state.lost = false
	d.powerCut() // only what is stable is left
	return nil
}

func newStickyMachine(t *testing.T) (*machine, *stickiness) {
	d, state := newDisk(64, 512), &stickiness{}
	m := &machine{rig: newLonelyRig(t, stickyDisk{markedDisk{d}, state}), disk: d}
	m.nexus = m.stage("a", 1)
	return m, state
}

// TestStagingAnewRecoversTheDevice: after a Sync that failed the volume is
// usable again as soon as it is staged anew, with what the medium holds.
func TestStagingAnewRecoversTheDevice(t *testing.T) {
	m, state := newStickyMachine(t)
	before, _ := run(t, m.nexus, readOne, nil)
	m.on(m.nexus, "good", writeOne)
	m.disk.syncErr = errDisk
	m.on(m.nexus, "4/4400", syncAll)
	m.on(m.stage("a", 1), "4/4400", readOne) // a reconnect
	if state.recovers != 0 {
		t.Fatal("recovered for those who lost something")
	}
	again := m.stage("a", 2)
	if got, st := run(t, again, readOne, nil); st.code != Good || !bytes.Equal(got, before) {
		t.Errorf("%s: a lost write is still shown", text(st))
	}
	m.on(again, "good", writeOne)
	m.on(again, "good", syncAll)
	if state.recovers != 1 {
		t.Errorf("recovered %d times", state.recovers)
	}
	m.on(m.nexus, "4/4400", readOne) // the old stage never comes back
	m.on(m.nexus, "4/4400", syncAll)
}

// TestRecoveryWaitsForTheUnaware: as long as somebody is attached who is not
// told of the loss, the device is left as it is.
func TestRecoveryWaitsForTheUnaware(t *testing.T) {
	m, state := newStickyMachine(t)
	m.on(m.nexus, "good", writeOne)
	m.disk.syncErr = errDisk
	m.on(m.nexus, "4/4400", syncAll)
	state.bad = true
	b := m.stage("b", 1) // the medium is bad: b gets in and is not lost
	m.on(b, "4/4400", syncAll)
	state.bad = false
	c := m.stage("c", 1)
	if state.recovers != 1 {
		t.Fatalf("recovered under b (%d)", state.recovers)
	}
	m.on(c, "4/4400", syncAll)
	b.Detach()
	c.Detach()
	m.on(m.stage("d", 1), "good", syncAll)
}

// TestRecoveryAfterARestart: what a process before lost may still be shown by
// the page cache that outlived it.
func TestRecoveryAfterARestart(t *testing.T) {
	m, _ := newStickyMachine(t)
	m.on(m.nexus, "good", writeOne)
	m.disk.syncErr = errDisk
	m.on(m.nexus, "4/4400", syncAll)
	state := &stickiness{}
	m.rig = newLonelyRig(t, stickyDisk{markedDisk{m.disk}, state})
	m.on(m.stage("a", 1), "4/4400", readOne)
	m.on(m.stage("a", 2), "good", readOne)
	if state.recovers != 1 {
		t.Errorf("recovered %d times", state.recovers)
	}
}
