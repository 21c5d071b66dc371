package scsi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestNACA(t *testing.T) {
	for cdb, want := range map[string]bool{
		"00 00 0000 00 04":                        true,
		"00 00 0000 00 FB":                        false,
		"28 00 00000000 00 0001 04":               true,
		"28 04 04040404 04 0404 FB":               false,
		"5E 00 00 00000000 FFFF 04":               true,
		"88 00 0000000000000000 00000001 00 04":   true,
		"A8 00 00000000 00000001 00 04":           true,
		"A8 00 00000000 00000001 00 00 04040404":  false,
		"7F 04 0000 00 00 00 0A":                  true, // variable length
		"7F 00 0404 04 04 04 04 0404040404040404": false,
		"7E 04": true,
		"67 04 0404 04 04 04 04 0404040404040404": false, // reserved
		"C4 04 0404 04 04 04 04 0404040404040404": false, // vendor specific
		"FF 04 0404 04 04 04 04 0404040404040404": false,
	} {
		if got := naca((*[16]byte)(parse(t, cdb))); got != want {
			t.Errorf("%s: %t", cdb, got)
		}
	}
}

// What a command is for the tests below; the failing ones have no place in the
// command set.
const (
	readNACA = "28 00 00000001 00 0001 04"
	bad      = "01 00 0000 00 00"
	badNACA  = "01 00 0000 00 04"
	aborts   = "5F 05 01 0000 00000018 00"
)

// crew is a unit with two nexuses and the tasks that play on it.
type crew struct {
	*rig
	nexuses map[byte]*Nexus
	log     []string
}

func newCrew(t testing.TB) *crew {
	t.Helper()
	r := newRig(t, newDisk(64, 512))
	return &crew{rig: r, nexuses: map[byte]*Nexus{'a': r.nexus, 'b': r.attach(NexusConfig{InitiatorPort: "iqn.b,i,0x1", TPGT: 1})}}
}

// member is a task of the crew.
type member struct {
	player
	Command
}

// decodes reads a task's CDB; who is a name that begins with its nexus, a or b,
// and its attribute: s, o, h or c for ACA.
func (c *crew) decodes(who, cdb string) *member {
	c.Helper()
	a := Attribute(strings.IndexByte("usohc", who[1]))
	return &member{player{name: who, log: &c.log}, c.nexuses[who[0]].Decode([8]byte{}, a, parse(c, cdb))}
}

func (c *crew) joins(m *member) {
	if !m.Join(&m.Turn, m) {
		c.log = append(c.log, m.name+"="+text(m.Status))
	}
}

func (c *crew) starts(who, cdb string) *member {
	c.Helper()
	m := c.decodes(who, cdb)
	c.joins(m)
	return m
}

// fails ends a task with CHECK CONDITION.
func (m *member) fails() {
	m.Fault()
	m.Leave()
}

// played fails the test unless those had their turn, or failed, since.
func (c *crew) played(want ...string) {
	c.Helper()
	if !slices.Equal(c.log, want) {
		c.Fatalf("%q, want %q", c.log, want)
	}
	c.log = nil
}

// A command that fails with NACA set holds dormant tasks of all nexuses up until the
// faulted one clears that; those that have their turn go on. Without NACA there is
// no such thing.
func TestACAHoldsDormantTasks(t *testing.T) {
	for _, cdb := range []string{read, readNACA} {
		c := newCrew(t)
		first, beside := c.starts("as1", cdb), c.starts("bs2", read)
		second := c.starts("ao3", read)
		c.starts("bs4", read)
		c.played("as1=good", "bs2=good")
		first.fails()
		beside.Leave()
		if cdb == readNACA {
			c.played()
			c.nexuses['b'].ClearACA([8]byte{}) // it has none
			c.nexuses['a'].ClearACA([8]byte{0, 9})
			c.played()
			c.nexuses['a'].ClearACA([8]byte{})
		}
		c.played("ao3")
		second.Leave()
		c.played("bs4")
	}
}

// TestACAAdmission: SAM-5 sections 5.10.3 and 5.10.4.
func TestACAAdmission(t *testing.T) {
	for _, tt := range []struct{ who, cdb, shared, perNexus string }{
		{"ac", read, "good", "good"},
		{"ac", readNACA, "good", "good"},
		{"as", read, "aca", "aca"},
		{"ah", readNACA, "aca", "aca"},
		{"au", "12 00 00 00 FF 00", "aca", "aca"}, // INQUIRY is no exception
		{"ao", aborts, "aca", "aca"},
		{"ac", aborts, "good", "good"},
		{"bs", read, "busy", "good"},
		{"bs", readNACA, "aca", "good"},
		{"bs", bad, "busy", "5/2000"},
		{"bh", "03 00 00 00 FF 00", "busy", "good"},
		{"bc", read, "aca", "5/4900"},
		{"bc", bad, "aca", "5/2000"},
		{"bs", aborts, "good", "good"},
		{"bo", aborts[:len(aborts)-1] + "4", "good", "good"},
		{"bs", "5F 04 01 0000 00000018 00", "busy", "good"}, // PREEMPT
	} {
		for perNexus, want := range map[bool]string{false: tt.shared, true: tt.perNexus} {
			c := newCrew(t)
			c.unit.settings.Store(&settings{TaskPolicy: TaskPolicy{SetPerNexus: perNexus}})
			c.starts("as", readNACA).fails()
			c.log = nil
			if c.starts(tt.who, tt.cdb); !slices.Equal(c.log, []string{tt.who + "=" + want}) {
				t.Errorf("TST %t: %s: %q, want %s", perNexus, tt.cdb, c.log, want)
			}
		}
	}
	c := newCrew(t)
	if c.starts("ac", read); c.log[0] != "ac=5/4900" {
		t.Errorf("the ACA attribute without an ACA condition: %q", c.log)
	}
	if got := text(c.nexuses['a'].Decode([8]byte{0, 7}, ACA, parse(t, "12 00 00 00 60 00")).Status); got != "5/4900" {
		t.Errorf("the ACA attribute without a unit: %s", got)
	}
}

// One task with the ACA attribute at a time is let in, and has its turn at once.
// How it ends is what becomes of the condition (SAM-5 section 5.10.5).
func TestACATasks(t *testing.T) {
	for _, tt := range []struct {
		name, cdb string
		fails     bool
		clears    bool
	}{
		{"good", read, false, false},
		{"fails", read, true, true},
		{"fails with NACA", readNACA, true, false},
		{"fails at once", bad, true, true},
		{"fails at once with NACA", badNACA, true, false},
	} {
		c := newCrew(t)
		first := c.starts("ao1", readNACA)
		c.starts("bo2", read)
		first.fails()
		c.log = nil
		task := c.starts("ac3", tt.cdb)
		if !task.left && task.set != nil {
			c.starts("ac4", read)
			c.played("ac3=good", "ac4=aca")
		}
		c.log = nil
		if tt.fails {
			task.Fault()
		}
		task.Leave()
		if want := map[bool][]string{true: {"bo2"}}[tt.clears]; !slices.Equal(c.log, want) {
			t.Errorf("%s: %q, want %q", tt.name, c.log, want)
		}
		c.log = nil
		if n := len(c.unit.tasks.faulted); n != map[bool]int{true: 0, false: 1}[tt.clears] {
			t.Errorf("%s: %d conditions", tt.name, n)
		}
		if got := c.starts("ac5", read).Status; text(got) != map[bool]string{true: "5/4900", false: "good"}[tt.clears] {
			t.Errorf("%s: the next one %s", tt.name, text(got))
		}
	}
}

// TestWhatClearsACA: each lets the dormant tasks of others go on.
func TestWhatClearsACA(t *testing.T) {
	for name, clears := range map[string]func(*crew){
		"CLEAR ACA":          func(c *crew) { c.nexuses['a'].ClearACA([8]byte{0x40}) },
		"LOGICAL UNIT RESET": func(c *crew) { c.unit.Reset() },
		"power on":           func(c *crew) { c.unit.PowerOn() },
		"I_T nexus loss":     func(c *crew) { c.nexuses['a'].LoseACA() },
		"I_T NEXUS RESET":    func(c *crew) { c.nexuses['a'].Lose() },
		"the nexus's end":    func(c *crew) { c.nexuses['a'].Detach() },
		"the unit's removal": func(c *crew) { c.inventory.Remove(0) },
	} {
		for _, perNexus := range []bool{false, true} {
			c := newCrew(t)
			c.unit.settings.Store(&settings{TaskPolicy: TaskPolicy{SetPerNexus: perNexus}})
			first, waiting := c.starts("ao1", readNACA), "bo2"
			if perNexus {
				waiting = "ao2"
			}
			c.starts(waiting, read)
			first.fails()
			c.nexuses['b'].Lose()
			c.played("ao1=good")
			if clears(c); !slices.Equal(c.log, []string{waiting}) {
				t.Errorf("%s: %q", name, c.log)
			}
			l := c.nexuses['a'].lookup([8]byte{})
			if c.unit.tasks.aca.Load() || l != nil && l.fault.Load() != nil {
				t.Errorf("%s leaves something behind", name)
			}
		}
	}
}

// PREEMPT AND ABORT of the faulted nexus clears its condition, from another nexus
// and from itself; of a third one it leaves it (SPC-4 section 5.13.11.2.5).
func TestPreemptAndAbortClearsACA(t *testing.T) {
	for _, tt := range []struct {
		from   int
		key    uint64
		action byte
		clears bool
	}{
		{portB, 0xA, actionPreemptAndAbort, true},
		{portB, 0xC, actionPreemptAndAbort, false},
		{portA, 0xA, actionPreemptAndAbort, true},
		{portA, 0xC, actionPreemptAndAbort, false},
		{portA, 0xA, actionPreempt, false},
	} {
		p := newPorts(t, newDisk(64, 512))
		p.register()
		c := p.nexuses[portA].Decode([8]byte{}, Simple, parse(t, readNACA))
		c.Fault()
		attribute := map[bool]Attribute{true: ACA, false: Simple}[tt.from == portA]
		list := outList(uint64(0xA+tt.from), tt.key, 0)
		out := p.nexuses[tt.from].Decode([8]byte{}, attribute, parse(t, fmt.Sprintf("5F %02X 01 0000 %08X 00", tt.action, len(list))))
		if _, st := perform(out, list); st.code != Good {
			t.Fatal(text(st))
		}
		if got := !p.unit.tasks.aca.Load(); got != tt.clears {
			t.Errorf("%+v: cleared %t", tt, got)
		}
	}
}

// A task that was decoded before the condition was there, or gone, is asked again
// when it joins.
func TestACAFoundAtJoining(t *testing.T) {
	c := newCrew(t)
	mine, theirs, asks := c.decodes("as1", read), c.decodes("bs2", read), c.decodes("bs3", readNACA)
	invalid := c.decodes("ac0", bad)
	c.starts("as4", badNACA).fails()
	invalid.fails() // of no condition, and so does not clear this one
	c.log = nil
	c.joins(mine)
	c.joins(theirs)
	c.joins(asks)
	c.played("as1=aca", "bs2=busy", "bs3=aca")
	one, two := c.decodes("ac5", read), c.decodes("ac6", read)
	c.joins(one)
	c.joins(two)
	c.played("ac5=good", "ac6=aca")
	for _, m := range []*member{mine, theirs, asks, two} {
		if m.Kind != Done || m.Length != 0 || m.Dir != NoData {
			t.Errorf("%s is to do something: %+v", m.name, m.Command)
		}
	}
	one.Leave()
	late := c.decodes("ac7", read)
	c.nexuses['a'].ClearACA([8]byte{})
	c.joins(late)
	c.played("ac7=5/4900")
	if late.Fault(); c.unit.tasks.aca.Load() {
		t.Error("an invalid message without NACA established a condition")
	}
}

// A nexus keeps its unit attention while its commands are refused. One that is
// told of it by a command with NACA has an ACA condition for it.
func TestACAAndUnitAttention(t *testing.T) {
	c := newCrew(t)
	c.starts("as1", badNACA).fails()
	c.log = nil
	c.unit.CapacityChanged()
	c.starts("bs2", read)
	c.starts("as3", read)
	c.played("bs2=busy", "as3=aca")
	task := c.starts("ac4", read)
	task.fails()
	c.starts("bs5", readNACA).fails()
	c.starts("as6", read)
	c.played("ac4=6/2A09", "bs5=6/2A09", "as6=busy")
}

// What is no CHECK CONDITION establishes nothing: the caller does not tell of it.
// Here: a command for no unit, and one of a nexus that has ended.
func TestACAOfNobody(t *testing.T) {
	c := newCrew(t)
	nowhere := c.nexuses['a'].Decode([8]byte{0, 5}, Simple, parse(t, badNACA))
	nowhere.Fault()
	new(Command).Fault()
	late := c.starts("as1", readNACA)
	c.nexuses['a'].Detach()
	late.fails()
	if c.unit.tasks.aca.Load() {
		t.Error("there is an ACA condition that nobody can clear")
	}
}

// A task of another nexus that fails while a condition stands has its own behind it.
func TestSecondACA(t *testing.T) {
	c := newCrew(t)
	first, second, third := c.starts("as1", readNACA), c.starts("bs2", readNACA), c.starts("bs3", read)
	dormant := c.starts("ao4", read)
	c.log = nil
	first.fails()
	third.fails()
	second.fails()
	c.starts("bc5", read)
	c.starts("ac6", read).fails()
	c.played("bc5=aca", "ac6=good")
	c.starts("as7", bad) // no longer looked at
	task := c.starts("bc8", read)
	c.played("as7=busy", "bc8=good")
	task.Leave()
	c.nexuses['b'].ClearACA([8]byte{})
	c.played("ao4")
	dormant.Leave()
	c.starts("as9", read)
	c.played("as9=good")
}

// TST may change while a condition stands: its nexus stays where that is.
func TestACAOutlivesTST(t *testing.T) {
	for _, perNexus := range []bool{false, true} {
		c := newCrew(t)
		c.unit.settings.Store(&settings{TaskPolicy: TaskPolicy{SetPerNexus: perNexus}})
		first := c.starts("as1", readNACA)
		c.starts("ao2", read)
		first.fails()
		c.unit.settings.Store(&settings{TaskPolicy: TaskPolicy{SetPerNexus: !perNexus}})
		c.log = nil
		c.starts("bs3", read)
		c.starts("as4", read)
		c.starts("ac5", read).Leave()
		c.played("bs3=good", "as4=aca", "ac5=good")
		c.nexuses['a'].ClearACA([8]byte{})
		c.played("ao2")
	}
}

// FuzzACA has tasks come, fail and go: nobody has a turn while a condition stands,
// and when both nexuses have ended nobody waits.
func FuzzACA(f *testing.F) {
	f.Add([]byte{0x00, 0x28, 0x12, 0x80, 0x30, 0xC0})
	f.Add([]byte{0x20, 0x04, 0x0C, 0x1C, 0x80, 0x81, 0x82, 0x28, 0xD0, 0x83})
	f.Fuzz(func(t *testing.T, moves []byte) {
		c := newCrew(t)
		defer func() { _ = c.unit.Close() }()
		var all []*member
		for _, move := range moves[:min(len(moves), 200)] {
			nexus := string("ab"[move>>6&1])
			standing := c.unit.tasks.aca.Load()
			c.log = nil
			switch pick := int(move & 0x0F); {
			case move&0x80 == 0:
				cdb := []string{read, readNACA, bad, badNACA}[move>>4&3]
				all = append(all, c.starts(nexus+string("usohc"[pick%5]), cdb))
				continue
			case move&0x30 == 0x30:
				c.nexuses[nexus[0]].ClearACA([8]byte{})
			case pick < len(all):
				if move&0x10 != 0 {
					all[pick].Fault()
				}
				all[pick].Leave()
				all = slices.Delete(all, pick, pick+1)
			}
			if len(c.log) > 0 && standing && c.unit.tasks.aca.Load() {
				t.Errorf("%q have their turn in spite of ACA", c.log)
			}
		}
		c.nexuses['a'].Detach()
		c.nexuses['b'].Detach()
		for _, m := range all {
			m.Leave()
		}
		if s := &c.unit.tasks; s.heads != 0 || s.aca.Load() || s.acaTask != nil || len(s.queue) > 0 && (s.queue[0].tasks != 0 || len(s.queue[0].waiting) > 0) {
			t.Errorf("left behind: %+v", s.queue)
		}
	})
}
