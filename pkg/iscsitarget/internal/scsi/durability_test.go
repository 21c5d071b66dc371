package scsi

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

const (
	writeOne = "2A 00 00000004 00 0001 00"
	writeFUA = "2A 08 00000004 00 0001 00"
	readOne  = "28 00 00000004 00 0001 00"
	syncAll  = "35 00 00000000 00 0000 00"
)

// machine is a rig over one disk that outlives its units.
type machine struct {
	*rig
	disk *disk
}

func newMachine(t testing.TB, edits ...func(*UnitConfig)) *machine {
	d := newDisk(64, 512)
	m := &machine{rig: newLonelyRig(t, markedDisk{d}, edits...), disk: d}
	m.nexus = m.stage("a", 1)
	return m
}

func (m *machine) stage(initiator string, nonce int) *Nexus {
	m.Helper()
	return m.attach(NexusConfig{InitiatorPort: initiator, Stage: stage(initiator, nonce)})
}

// restart is a new process over the same disk, under a boot id; what ran before
// is left as it was, as kill -9 does.
func (m *machine) restart(boot string) {
	m.Helper()
	m.rig = newLonelyRig(m.TB, markedDisk{m.disk}, func(c *UnitConfig) { c.BootID = boot })
}

func (m *machine) wantMark(boot string, stages, lost []blockdev.Stage) {
	m.Helper()
	want := blockdev.VolatileMark{BootID: boot, Stages: stages, Lost: lost}
	if diff := cmp.Diff(want, m.disk.markNow(), cmp.Transformer("sorted", sortedStages)); diff != "" {
		m.Errorf("the mark on stable storage (-want +got):\n%s", diff)
	}
}

func sortedStages(s []blockdev.Stage) map[blockdev.Stage]bool {
	set := map[blockdev.Stage]bool{}
	for _, x := range s {
		set[x] = true
	}
	return set
}

// pass lets a bubble's time pass.
func pass(d time.Duration) { <-time.After(d) }

func stages(s ...blockdev.Stage) []blockdev.Stage { return s }

func (m *machine) on(n *Nexus, want, cdb string) {
	m.Helper()
	if _, st := run(m, n, cdb, pattern(512)); text(st) != want {
		m.Errorf("%s: %s, want %s", cdb, text(st), want)
	}
}

func TestPowerCutTurnsIntoErrors(t *testing.T) {
	m := newMachine(t)
	m.on(m.nexus, "good", writeOne)
	m.wantMark("boot-1", stages(stage("a", 1)), nil)
	m.disk.powerCut()
	m.restart("boot-2")
	m.wantMark("", nil, stages(stage("a", 1)))

	back := m.stage("a", 1)
	for _, cdb := range []string{
		writeOne, writeFUA, readOne, syncAll, "08 00 00 05 01 00", "2F 00 00000004 00 0001 00", "2E 00 00000004 00 0001 00",
		"41 00 00000004 00 0001 00", "93 00 0000000000000001 00000001 00 00", "91",
	} {
		m.on(back, "4/4400", cdb)
		if c := back.Decode([8]byte{}, Simple, parse(t, cdb)); c.Kind != Done {
			t.Errorf("%s: not refused at once", cdb)
		}
	}
	for _, cdb := range []string{"00", "12 00 00 00 24 00", "25", "1A 00 3F 00 FF 00"} {
		m.on(back, "good", cdb)
	}
	again := m.stage("a", 2)
	m.on(again, "good", writeOne)
	m.on(again, "good", syncAll)
	m.on(back, "4/4400", readOne)
	m.wantMark("boot-2", stages(stage("a", 2)), stages(stage("a", 1)))

	// The old nonce gets errors for ever, over the next power cut too.
	m.restart("boot-3")
	m.on(m.stage("a", 1), "4/4400", readOne)
	m.on(m.stage("a", 2), "4/4400", readOne)
	m.on(m.stage("a", 3), "good", readOne)
}

func TestPowerCutWithNothingVolatile(t *testing.T) {
	for name, prepare := range map[string]func(*machine){
		"nothing written": func(m *machine) { m.on(m.nexus, "good", readOne) },
		"FUA":             func(m *machine) { m.on(m.nexus, "good", writeFUA) },
		"closed": func(m *machine) {
			m.on(m.nexus, "good", writeOne)
			if err := m.unit.Close(); err != nil {
				m.Error(err)
			}
		},
	} {
		m := newMachine(t)
		prepare(m)
		m.wantMark("", nil, nil)
		written := bytes.Clone(m.disk.now)
		m.disk.powerCut()
		m.restart("boot-2")
		m.on(m.stage("a", 1), "good", readOne)
		if !bytes.Equal(m.disk.now, written) {
			t.Errorf("%s: something was lost", name)
		}
	}
	w := newMachine(t, writeThrough)
	w.on(w.nexus, "good", writeOne)
	if w.wantMark("", nil, nil); w.disk.marks != 0 {
		t.Error("write-through marks")
	}
}

func TestProcessCrashGoesOn(t *testing.T) {
	m := newMachine(t)
	m.on(m.nexus, "good", writeOne)
	m.restart("boot-1")
	m.wantMark("boot-1", stages(stage("a", 1)), nil)
	n := m.stage("a", 1)
	m.on(n, "good", readOne)
	// What the process before wrote is still volatile.
	m.on(n, "good", "28 08 00000004 00 0001 00")
	if !bytes.Equal(m.disk.now, m.disk.stable) {
		t.Error("a FUA read gave what is not stable")
	}
	m.on(n, "good", syncAll)
	m.restart("boot-2") // the mark was not cleared yet: better one error too many
	m.on(m.stage("a", 1), "4/4400", readOne)
}

func TestMarkBeforeTheWrite(t *testing.T) {
	m := newMachine(t)
	m.disk.writing = func() {
		if got := m.disk.markNow(); !slices.Contains(got.Stages, stage("a", 1)) || got.BootID != "boot-1" {
			t.Errorf("written under the mark %+v", got)
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { m.on(m.nexus, "good", writeOne) })
	}
	wg.Wait()
	if m.disk.marks != 1 {
		t.Errorf("eight writers marked %d times", m.disk.marks)
	}
}

func TestNoMarkNoWrite(t *testing.T) {
	m := newMachine(t)
	before := bytes.Clone(m.disk.now)
	m.disk.markErr = errDisk
	m.on(m.nexus, "4/4400", writeOne)
	m.on(m.nexus, "4/4400", "41 00 00000004 00 0001 00")
	holds(t, m.disk, before, 0, nil)
	m.disk.markErr = nil
	m.on(m.nexus, "good", writeOne)
	m.wantMark("boot-1", stages(stage("a", 1)), nil)
}

// TestNoRoomForTheMark: to the initiator a full pool is one thing, whatever it
// had no room for.
func TestNoRoomForTheMark(t *testing.T) {
	m := newMachine(t)
	m.disk.markErr = blockdev.ErrNoSpace
	m.on(m.nexus, "7/2707", writeOne)
	m.on(m.nexus, "good", readOne)
	m.disk.markErr = nil
	m.on(m.nexus, "good", writeOne)
}

func TestLateNexusIsMarked(t *testing.T) {
	m := newMachine(t)
	reader := m.stage("r", 1)
	m.on(m.nexus, "good", writeOne)
	m.wantMark("boot-1", stages(stage("a", 1), stage("r", 1)), nil)
	late := m.stage("b", 1)
	m.wantMark("boot-1", stages(stage("a", 1), stage("r", 1), stage("b", 1)), nil)
	late.Detach()
	m.stage("b", 1)
	if m.disk.marks != 2 {
		t.Errorf("marked %d times", m.disk.marks)
	}
	m.disk.markErr = errDisk
	if _, err := m.inventory.Attach(NexusConfig{Stage: stage("c", 1)}); !errors.Is(err, errDisk) {
		t.Errorf("attached without a durable stage: %v", err)
	}
	m.disk.markErr = nil
	// What is on stable storage was unknown: the next write makes sure.
	m.on(reader, "good", writeOne)
	m.wantMark("boot-1", stages(stage("a", 1), stage("r", 1), stage("b", 1)), nil)
	if m.disk.marks != 4 {
		t.Errorf("marked %d times", m.disk.marks)
	}
}

func TestMarkIsClearedWhenCleanAndQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		marked := func(want bool) {
			t.Helper()
			synctest.Wait()
			if got := m.disk.markNow().BootID != ""; got != want {
				t.Errorf("marked %v, want %v", got, want)
			}
		}
		m.on(m.nexus, "good", writeOne)
		pass(time.Hour)
		marked(true) // never flushed
		m.on(m.nexus, "good", syncAll)
		pass(quietPeriod - time.Millisecond)
		marked(true)
		m.on(m.nexus, "good", syncAll) // the quiet period starts again
		pass(quietPeriod - time.Millisecond)
		marked(true)
		pass(time.Millisecond)
		marked(false)
		m.on(m.nexus, "good", writeOne)
		marked(true)
		m.on(m.nexus, "good", syncAll)
		m.on(m.nexus, "good", writeOne) // not clean any more
		pass(time.Hour)
		marked(true)
		m.on(m.nexus, "good", syncAll)
		m.disk.set(func() { m.disk.markErr = errDisk })
		pass(quietPeriod)
		marked(true)
		m.disk.set(func() { m.disk.markErr = nil })
		pass(quietPeriod) // tried again
		marked(false)
	})
}

func TestNotCleanWhileAWriteIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.on(m.nexus, "good", writeOne)
		hold, under := make(chan struct{}), make(chan struct{})
		m.disk.writing = sync.OnceFunc(func() { close(under); <-hold })
		done := make(chan struct{})
		go func() { m.on(m.nexus, "good", writeOne); close(done) }()
		<-under
		m.on(m.nexus, "good", syncAll)
		pass(time.Hour)
		m.wantMark("boot-1", stages(stage("a", 1)), nil)
		close(hold)
		<-done
		pass(time.Hour)
		m.wantMark("boot-1", stages(stage("a", 1)), nil)

		// A write that begins and ends while the Sync runs.
		m.disk.syncing = make(chan chan struct{})
		synced := make(chan struct{})
		go func() { m.on(m.nexus, "good", syncAll); close(synced) }()
		release := <-m.disk.syncing
		m.on(m.nexus, "good", writeOne)
		close(release)
		<-synced
		pass(time.Hour)
		m.wantMark("boot-1", stages(stage("a", 1)), nil)
		m.disk.syncing = nil
		m.on(m.nexus, "good", syncAll)
		pass(quietPeriod)
		synctest.Wait()
		m.wantMark("", nil, nil)
	})
}

func TestFailedSyncLosesTheStages(t *testing.T) {
	for name, fail := range map[string]func(*machine){
		"SYNCHRONIZE CACHE": func(m *machine) { m.on(m.nexus, "4/4400", syncAll) },
		"FUA write":         func(m *machine) { m.on(m.nexus, "4/4400", writeFUA) },
		"FUA read":          func(m *machine) { m.on(m.nexus, "4/4400", "28 08 00000004 00 0001 00") },
		"another initiator": func(m *machine) { m.on(m.stage("b", 1), "4/4400", syncAll) },
		"stop":              func(m *machine) { m.on(m.nexus, "4/4400", "1B 00 00 00 00 00") },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.on(m.nexus, "good", writeOne)
			inFlight := m.nexus.Decode([8]byte{}, Simple, parse(t, writeOne))
			flush := m.nexus.Decode([8]byte{}, Simple, parse(t, syncAll))
			m.disk.syncErr = errDisk
			fail(m)
			if _, st := flush.Execute(t.Context(), nil); text(st) != "4/4400" {
				t.Errorf("a flush decoded before: %s", text(st))
			}
			m.on(m.nexus, "4/4400", syncAll) // the disk itself would say yes
			m.on(m.nexus, "4/4400", readOne)
			if st := inFlight.WriteAt(pattern(512), 0); text(st) != "4/4400" {
				t.Errorf("a command decoded before: %s", text(st))
			}
			if got := m.disk.markNow(); !slices.Contains(got.Lost, stage("a", 1)) || got.BootID != "" || len(got.Stages) > 0 {
				t.Errorf("mark %+v", got)
			}
			if n, want := m.unit.LostStages(), len(m.disk.markNow().Lost); n != want || n == 0 {
				t.Errorf("%d stages are lost, want %d", n, want)
			}
			m.restart("boot-1")
			m.on(m.stage("a", 1), "4/4400", syncAll)
			m.on(m.stage("a", 2), "good", syncAll)
		})
	}
}

func TestFailedSyncInMemoryOnly(t *testing.T) {
	d := newDisk(64, 512)
	m := &machine{rig: newLonelyRig(t, d), disk: d}
	n := m.stage("a", 1)
	m.on(n, "good", writeOne)
	n.Detach()
	d.syncErr = errDisk
	m.on(m.stage("b", 1), "4/4400", syncAll)
	m.on(m.stage("a", 1), "4/4400", syncAll)
	m.on(m.stage("a", 2), "good", writeOne)
	if err := m.inventory.Forget("a"); err != nil {
		t.Error(err)
	}
}

func TestWriteThroughLosesNothing(t *testing.T) {
	m := newMachine(t, writeThrough)
	m.on(m.nexus, "good", writeOne)
	m.disk.syncErr = errDisk
	m.on(m.nexus, "3/0C00 at 4", writeOne) // not acknowledged
	m.on(m.nexus, "good", readOne)
	m.disk.syncErr = blockdev.ErrNoSpace
	m.on(m.nexus, "7/2707", writeOne)
	m.on(m.nexus, "good", writeOne)
	m.wantMark("", nil, nil)
}

func TestFailedSyncWriteIsProbed(t *testing.T) {
	d := newDisk(64, 512)
	m := &machine{disk: d, rig: newLonelyRig(t, struct {
		markedDisk
		brokenSyncWriter
	}{markedDisk{d}, brokenSyncWriter{}})}
	n := m.stage("a", 1)
	m.on(n, "good", writeOne)
	m.on(n, "3/0C00 at 4", writeFUA) // the write half failed, nothing else is lost
	m.on(n, "good", readOne)
	m.on(n, "good", writeOne)
	d.syncErr = blockdev.ErrLostWrites // the Sync half failed: the device is marked for it
	m.on(n, "3/0C00 at 4", writeFUA)
	m.on(n, "4/4400", readOne)
}

type brokenSyncWriter struct{}

func (brokenSyncWriter) WriteAtSync([]byte, int64) error { return errDisk }

func TestLossThatCannotBeRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		m.on(m.nexus, "good", writeOne)
		m.disk.set(func() { m.disk.syncErr, m.disk.markErr = errDisk, errDisk })
		m.on(m.nexus, "4/4400", syncAll)
		m.on(m.nexus, "4/4400", readOne)
		m.wantMark("boot-1", stages(stage("a", 1)), nil)
		m.on(m.stage("b", 1), "4/4400", writeOne)
		m.disk.set(func() { m.disk.markErr = nil })
		pass(quietPeriod)
		synctest.Wait()
		m.wantMark("", nil, stages(stage("a", 1)))
	})
}

func TestForget(t *testing.T) {
	m := newMachine(t)
	b := m.stage("b", 1)
	m.on(m.nexus, "good", writeOne)
	m.nexus.Detach()
	m.on(b, "good", writeOne)
	if err := m.inventory.Forget("a"); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(m.disk.now, m.disk.stable) {
		t.Error("forgotten before its writes were stable")
	}
	m.wantMark("boot-1", stages(stage("b", 1)), nil)
	if err := m.inventory.Forget("b"); err != nil { // attached: its stage stays
		t.Error(err)
	}
	m.wantMark("boot-1", stages(stage("b", 1)), nil)
	b.Detach()
	if err := m.inventory.Forget("b"); err != nil {
		t.Error(err)
	}
	m.wantMark("", nil, nil)
	marks := m.disk.marks
	if err := m.inventory.Forget("b"); err != nil || m.disk.marks != marks {
		t.Errorf("%v after %d marks more", err, m.disk.marks-marks)
	}
	m.on(m.stage("c", 1), "good", writeOne)
	m.wantMark("boot-1", stages(stage("c", 1)), nil)
}

func TestForgetWhenTheSyncFails(t *testing.T) {
	m := newMachine(t)
	m.on(m.nexus, "good", writeOne)
	m.nexus.Detach()
	m.disk.syncErr = errDisk
	if err := m.inventory.Forget("a"); !errors.Is(err, errDisk) {
		t.Errorf("%v", err)
	}
	m.wantMark("", nil, stages(stage("a", 1)))
	m.on(m.stage("b", 1), "good", writeOne)
	m.disk.syncErr = errDisk
	if err := m.inventory.Forget("a"); err != nil { // known already
		t.Error(err)
	}
	m.wantMark("", nil, stages(stage("b", 1)))
	m.disk.markErr = errDisk
	m.on(m.stage("b", 1), "4/4400", readOne)
	for _, n := range slices.Collect(mapsKeys(m.inventory.nexuses)) {
		n.Detach()
	}
	if err := m.inventory.Forget("b"); !errors.Is(err, errDisk) {
		t.Errorf("%v", err)
	}
	m.wantMark("", nil, stages(stage("b", 1)))
}

func mapsKeys(m map[*Nexus]struct{}) func(func(*Nexus) bool) {
	return func(yield func(*Nexus) bool) {
		for n := range m {
			if !yield(n) {
				return
			}
		}
	}
}

func TestClose(t *testing.T) {
	m := newMachine(t)
	m.on(m.nexus, "good", writeOne)
	if err := m.unit.Close(); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(m.disk.now, m.disk.stable) {
		t.Error("closed with volatile data")
	}
	m.wantMark("", nil, nil)
	m.on(m.nexus, "4/4400", writeOne)
	m.on(m.nexus, "good", readOne)
	m.wantMark("", nil, nil)
	if err := m.unit.Close(); err != nil {
		t.Error(err)
	}

	f := newMachine(t)
	f.on(f.nexus, "good", writeOne)
	f.disk.syncErr = errDisk
	if err := f.unit.Close(); !errors.Is(err, errDisk) {
		t.Errorf("%v", err)
	}
	f.wantMark("", nil, stages(stage("a", 1)))

	k := newMachine(t)
	k.on(k.nexus, "good", writeOne)
	k.disk.markErr = errDisk
	if err := k.unit.Close(); !errors.Is(err, errDisk) {
		t.Errorf("%v", err)
	}
	k.wantMark("boot-1", stages(stage("a", 1)), nil)
}

func TestMarkThatCannotBeTakenOver(t *testing.T) {
	m := newMachine(t)
	m.on(m.nexus, "good", writeOne)
	m.disk.markErr = errDisk
	for _, boot := range []string{"boot-2", ""} {
		if _, err := NewUnit(UnitConfig{Device: markedDisk{m.disk}, BootID: boot}); !errors.Is(err, errDisk) {
			t.Errorf("boot %q: %v", boot, err)
		}
	}
	m.disk.markErr = nil
	// Without a boot id every start is another boot.
	m.rig = newLonelyRig(t, markedDisk{m.disk}, func(c *UnitConfig) { c.BootID = "" })
	m.wantMark("", nil, stages(stage("a", 1)))
}

func TestStageLimit(t *testing.T) {
	m := newMachine(t)
	m.on(m.nexus, "good", writeOne)
	d := m.unit.durability
	for i := range stageLimit {
		d.mark.Stages = append(d.mark.Stages, stage("x", i))
		d.mark.Stages[len(d.mark.Stages)-1].Initiator += d.mark.Stages[len(d.mark.Stages)-1].Nonce
	}
	d.mark.Stages = d.mark.Stages[:stageLimit]
	full := slices.Clone(d.mark.Stages)
	fails := errors.New("no")
	m.disk.set(func() { m.disk.markErr = fails })
	if _, err := m.inventory.Attach(NexusConfig{Stage: stage("y", 1)}); err == nil {
		t.Error("one stage too many")
	}
	m.disk.set(func() { m.disk.markErr = nil })
	if _, err := m.inventory.Attach(NexusConfig{Stage: full[7]}); err != nil {
		t.Fatal(err)
	}
	// Those that were not attached are gone, since what they saw is stable.
	attached := []blockdev.Stage{m.nexus.config.Stage, full[7]}
	if got := d.mark.Stages; d.dirty() || len(got) != 2 || !slices.Contains(attached, got[0]) || !slices.Contains(attached, got[1]) {
		t.Errorf("dirty: %t, stages %v", d.dirty(), got)
	}
	// Where all are attached none can go.
	for i, s := range full[:stageLimit-1] {
		if _, err := m.inventory.Attach(NexusConfig{Stage: s}); err != nil {
			t.Fatalf("stage %d: %v", i, err)
		}
	}
	m.on(m.nexus, "good", writeOne)
	if _, err := m.inventory.Attach(NexusConfig{Stage: full[stageLimit-1]}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.inventory.Attach(NexusConfig{Stage: stage("y", 2)}); err == nil {
		t.Error("one attached stage too many")
	}
}

// TestPowerCutAtAnyTime cuts the power after each step of a history and checks
// the one promise: what a flush said GOOD to is there, and whoever had more
// acknowledged than is there gets an error from the next flush on.
func TestPowerCutAtAnyTime(t *testing.T) {
	history := []string{writeOne, syncAll, writeOne, writeFUA, writeOne, "41 00 00000008 00 0004 00", syncAll, readOne, writeOne}
	for steps := range len(history) + 1 {
		m := newMachine(t)
		flushed := bytes.Clone(m.disk.now)
		for i, cdb := range history[:steps] {
			c := m.nexus.Decode([8]byte{}, Simple, parse(t, cdb))
			out := bytes.Repeat([]byte{byte(i)}, 512)
			if _, st := perform(c, out); st.code != Good {
				t.Fatalf("%s: %s", cdb, text(st))
			}
			if cdb == syncAll {
				flushed = bytes.Clone(m.disk.now)
			}
		}
		acknowledged := bytes.Clone(m.disk.now)
		m.disk.powerCut()
		m.restart("boot-2")
		n := m.stage("a", 1)
		c := n.Decode([8]byte{}, Simple, parse(t, syncAll))
		st := c.Status
		if c.Kind == Exec {
			_, st = c.Execute(context.Background(), nil)
		}
		if st.code == Good && !bytes.Equal(m.disk.now, acknowledged) {
			t.Errorf("after %d steps a flush succeeded without acknowledged writes", steps)
		}
		if steps > 0 && history[steps-1] == syncAll && !bytes.Equal(m.disk.now, flushed) {
			t.Errorf("after %d steps flushed data was lost", steps)
		}
	}
}
