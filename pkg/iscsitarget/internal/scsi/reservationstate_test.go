package scsi

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
)

// restart is the unit of another process, to which nobody has logged in yet.
func restart(t *testing.T, k *keeper) *ports {
	t.Helper()
	return &ports{rig: newLonelyRig(t, k)}
}

// whole is what a unit has, but for PRGENERATION.
func whole(u *Unit) string {
	s := u.reservations.Load()
	return fmt.Sprintf("%+v type %d persist %v", s.registrations, s.kind, s.persist)
}

// TestPersist: with APTPL, each change is durable before it can be seen, and
// another process begins with it.
func TestPersist(t *testing.T) {
	k := newKeeper()
	p := newPorts(t, k)
	k.keeping = func() { // nothing may show that is not durable
		if again := restart(t, &keeper{disk: k.disk, state: k.state}); whole(again.unit) != whole(p.unit) {
			t.Errorf("before it is durable: %s, and kept is %s", whole(p.unit), whole(again.unit))
		}
	}
	steps := []func(){
		func() { p.out(portA, "good", actionRegister, 0, 0, 0xA, aptpl) },
		func() { p.out(portB, "good", actionRegister, 0, 0, 0xB, aptpl|allPorts) },
		func() { p.out(portC, "good", actionRegisterIgnore, 0, 0, 0xC, aptpl) },
		func() { p.out(portA, "good", actionReserve, exclusiveAccess, 0xA, 0) },
		func() { p.out(portC, "good", actionRegister, 0, 0xC, 0xCC, aptpl) },
		func() { p.move(portA, "good", moveList(0xA, 0xBB, 1, 1), appendTransportID(nil, portNames[portB])) },
		func() { p.out(portC, "good", actionPreempt, writeExclusiveAll, 0xCC, 0xBB) },
		func() { p.out(portC, "good", actionRelease, writeExclusiveAll, 0xCC, 0) },
		func() { p.out(portC, "good", actionReserve, writeExclusiveRegistrants, 0xCC, 0) },
		func() { p.out(portC, "good", actionRegister, 0, 0xCC, 0, aptpl) },
	}
	for i, step := range steps {
		before := k.sets
		step()
		p.attentionsTaken()
		if k.sets != before+1 {
			t.Errorf("step %d: written %d times", i, k.sets-before)
		}
		if again := restart(t, k); whole(again.unit) != whole(p.unit) {
			t.Errorf("step %d: %s, and after a restart %s", i, whole(p.unit), whole(again.unit))
		}
	}
	p.out(portA, "good", actionClear, 0, 0xA, 0)
	if k.state != nil {
		t.Errorf("after CLEAR: %s", k.state)
	}
}

func (p *ports) attentionsTaken() {
	for _, n := range p.nexuses {
		for pending := true; pending; {
			_, pending = (*n.luns.Load())[0].attentions.take()
		}
	}
}

// TestRestart: reservations are there before an initiator is.
func TestRestart(t *testing.T) {
	k := newKeeper()
	p := newPorts(t, k)
	p.out(portA, "good", actionRegister, 0, 0, 0xA, aptpl)
	p.out(portA, "good", actionReserve, writeExclusive, 0xA, 0)
	p = restart(t, k)
	p.login(portC)
	p.run(portC, "conflict", write)
	p.keys(0, 0xA) // PRGENERATION begins anew
	p.held(writeExclusive, 0xA)
	p.login(portA)
	p.out(portA, "good", actionRelease, writeExclusive, 0xA, 0)
	p.login(portB)
	p.run(portC, "good", "2A 00 00000001 00 0000 00")
}

// TestPersistEnds: APTPL 0 takes away what was kept, and keeps nothing more.
func TestPersistEnds(t *testing.T) {
	k := newKeeper()
	p := newPorts(t, k)
	p.out(portA, "good", actionRegister, 0, 0, 0xA, aptpl)
	p.out(portA, "good", actionReserve, writeExclusive, 0xA, 0)
	p.out(portB, "good", actionRegister, 0, 0, 0xB)
	sets := k.sets
	p.out(portB, "good", actionRegister, 0, 0xB, 0xBB)
	if k.state != nil || k.sets != sets {
		t.Errorf("%s kept, %d more times written", k.state, k.sets-sets)
	}
}

// TestStatesStayApart: saved mode pages stay beside reservations.
func TestStatesStayApart(t *testing.T) {
	k := newKeeper()
	p := newPorts(t, k)
	if err := p.unit.saveSettings(settings{WriteProtect: true}); err != nil {
		t.Fatal(err)
	}
	p.out(portA, "good", actionRegister, 0, 0, 0xA, aptpl)
	again := restart(t, k)
	if !again.unit.savedSettings().WriteProtect || len(again.unit.reservations.Load().registrations) != 1 {
		t.Errorf("kept %s", k.state)
	}
}

// TestCannotKeep: nothing changes that cannot be kept, and what may lie on the
// disk all the same is put right by the next change.
func TestCannotKeep(t *testing.T) {
	for _, x := range []struct {
		err  error
		want string
	}{{errDisk, "4/4400"}, {fmt.Errorf("full: %w", blockdev.ErrNoSpace), "5/5504"}} {
		k := newKeeper()
		p := newPorts(t, k)
		k.err = x.err
		p.out(portA, x.want, actionRegister, 0, 0, 0xA, aptpl)
		p.keys(0)
		k.err = nil
		k.state = json.RawMessage(`{"reservations":{"registrations":[{"initiator":"iqn.a,i,0x1","targetPort":1,"key":"10"}]}}`)
		p.out(portB, "good", actionRegister, 0, 0, 0xB)
		if again := restart(t, k); len(again.unit.reservations.Load().registrations) != 0 {
			t.Errorf("after a failure: %s", k.state)
		}
	}
}

// TestDamagedState keeps the unit from starting.
func TestDamagedState(t *testing.T) {
	const r = `{"initiator":"iqn.a,i,0x1","targetPort":1,"key":"10"}`
	const h = `{"initiator":"iqn.b,i,0x1","targetPort":1,"key":"10","holder":true}`
	for name, state := range map[string]string{
		"no JSON":         `{`,
		"unknown":         `{"reservation":{}}`,
		"no registration": `{"reservations":{}}`,
		"twice":           `{"reservations":{"registrations":[` + r + `,` + r + `]}}`,
		"key 0":           `{"reservations":{"registrations":[{"initiator":"iqn.a,i,0x1","key":"0"}]}}`,
		"no initiator":    `{"reservations":{"registrations":[{"key":"1"}]}}`,
		"type 2":          `{"reservations":{"registrations":[` + h + `],"type":2}}`,
		"no holder":       `{"reservations":{"registrations":[` + r + `],"type":1}}`,
		"holder of all":   `{"reservations":{"registrations":[` + h + `],"type":7}}`,
		"holder of none":  `{"reservations":{"registrations":[` + h + `]}}`,
		"too many":        `{"reservations":{"registrations":[` + strings.Repeat(r+`,`, maxRegistrations) + r + `]}}`,
	} {
		k := newKeeper()
		k.state = json.RawMessage(state)
		_, err := NewUnit(UnitConfig{Device: k})
		if !errors.Is(err, blockdev.ErrCorrupt) || !strings.Contains(err.Error(), "/state/unit.json") || !strings.Contains(err.Error(), "move it away") {
			t.Errorf("%s: %v", name, err)
		}
	}
	k := newKeeper()
	k.state = json.RawMessage(`{"reservations":{"registrations":[` + r + `,` + h + `],"type":5}}`)
	if _, err := NewUnit(UnitConfig{Device: k}); err != nil {
		t.Error(err)
	}
}

// TestPurge ends what an initiator has, whichever its ports, and nothing else's.
func TestPurge(t *testing.T) {
	k := newKeeper()
	p := newPorts(t, k)
	for who := range p.nexuses {
		p.out(who, "good", actionRegister, 0, 0, keyOf(who), aptpl)
	}
	p.out(portA, "good", actionReserve, exclusiveAccessRegistrants, 0xA, 0)
	p.nexuses[portA].Detach()
	p.nexuses[portB].Detach()
	if err := p.inventory.Purge("iqn"); err != nil { // nobody's name
		t.Error(err)
	}
	p.run(portC, "good", ready)
	k.err = errDisk
	if err := p.inventory.Purge("iqn.a"); !errors.Is(err, errDisk) {
		t.Errorf("Purge: %v", err)
	}
	k.err = nil
	if err := p.inventory.Purge("iqn.a"); err != nil {
		t.Error(err)
	}
	if again := restart(t, k); len(again.unit.reservations.Load().registrations) != 1 {
		t.Errorf("kept %s", k.state)
	}
	p.run(portC, "6/2A04", ready)
	p.keys(3, 0xC)
	p.held(noReservation, 0)
}

// TestPowerOn loses what does not persist.
func TestPowerOn(t *testing.T) {
	for _, persists := range []byte{0, aptpl} {
		p := newPorts(t, newKeeper())
		p.out(portA, "good", actionRegister, 0, 0, 0xA, persists)
		p.out(portA, "good", actionReserve, exclusiveAccess, 0xA, 0)
		p.unit.PowerOn()
		p.attentions("6/2900", "6/2900", "6/2900")
		if persists == aptpl {
			p.keys(0, 0xA)
			p.held(exclusiveAccess, 0xA)
			continue
		}
		p.keys(0)
		p.run(portC, "good", "16")
		p.unit.PowerOn()
		p.attentions("6/2900", "6/2900", "6/2900")
		p.run(portB, "good", "16")
	}
}
