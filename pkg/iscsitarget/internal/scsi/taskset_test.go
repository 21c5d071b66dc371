package scsi

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// player is a task with a name that says when its turn comes.
type player struct {
	Turn
	name string
	log  *[]string
}

func (p *player) Enable() { *p.log = append(*p.log, p.name) }

// TestTaskSet plays the rules of SAM-5 section 8.6: "s1" is a SIMPLE task that
// comes, "-s1" its end; what follows the colon are the tasks whose turn that is.
func TestTaskSet(t *testing.T) {
	for _, play := range []string{
		"s1:s1 s2:s2 -s1: -s2: s3:s3",
		"s1:s1 o2: s3: s4: -s1:o2 s5: -o2:s3,s4,s5 o6: -s3: -s4: -s5:o6 -o6: s7:s7",
		"o1:o1 o2: o3: -o1:o2 -o2:o3 -o3: o4:o4",
		"s1:s1 h2:h2 s3: h4:h4 -s1: -h2: -h4:s3",
		"o1:o1 s2: h3:h3 -o1: -h3:s2",
		"o1:o1 s2: h3:h3 -h3: -o1:s2",
		"h1:h1 o2: s3: -o2: -h1:s3", // one that waits goes away
		"s1:s1 o2: s3: -s3: -s1:o2 s4: -o2:s4",
		"s1:s1 o2: o3: s4: -o2: -o3: -s1:s4",
		"o1:o1 -o1: s2:s2 -s2: o3:o3 s4: -o3:s4",
		"u1:u1 o2: u3: -u1:o2 -o2:u3",
	} {
		set, log, players := taskSet{}, []string{}, map[string]*player{}
		for _, step := range strings.Fields(play) {
			move, want, _ := strings.Cut(step, ":")
			log = log[:0]
			if name, ends := strings.CutPrefix(move, "-"); ends {
				players[name].Leave()
				if players[name].Leave() {
					t.Errorf("%s: %s waited after its end", play, name)
				}
			} else {
				p := &player{name: move, log: &log}
				players[move] = p
				if set.join(&p.Turn, &Command{attribute: Attribute(strings.IndexByte("usoh", move[0]))}, p) {
					p.Enable()
				}
			}
			if got := strings.Join(log, ","); got != want {
				t.Errorf("%s: at %s the turn is of %q, want %q", play, move, got, want)
			}
		}
	}
}

// A task that never had its turn says so, once.
func TestLeaveOfOneThatWaits(t *testing.T) {
	set, log := taskSet{}, []string{}
	first, second := &player{log: &log}, &player{log: &log}
	set.join(&first.Turn, &Command{attribute: Ordered}, first)
	set.join(&second.Turn, &Command{attribute: Ordered}, second)
	got := []bool{second.Leave(), second.Leave(), first.Leave(), new(Turn).Leave()}
	if !slices.Equal(got, []bool{true, false, false, false}) {
		t.Error(got)
	}
}

func TestAttributes(t *testing.T) {
	for a := range Attribute(8) {
		if want := a <= ACA; a.Valid() != want {
			t.Errorf("attribute %d: valid %t", a, !want)
		}
	}
}

// SIMPLE tasks alone cost the task set no memory.
func TestSimpleTasksAllocateNothing(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	c := r.nexus.Decode([8]byte{}, Simple, parse(t, "28 00 00000004 00 0001 00"))
	players := [4]player{}
	n := testing.AllocsPerRun(1000, func() {
		for i := range players {
			players[i].Turn = Turn{}
			c.Join(&players[i].Turn, &players[i])
		}
		for i := range players {
			players[i].Leave()
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for four tasks", n)
	}
}

// What comes out of a second decoding is of the same shape, or has failed.
func TestAgain(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	c := r.nexus.Decode([8]byte{}, Simple, parse(t, "2A 00 00000004 00 0001 00"))
	if next := c.Again(); next.Kind != Write || next.Length != 512 || next.Status.code != Good {
		t.Errorf("%+v", next)
	}
	r.unit.CapacityChanged()
	if next := c.Again(); text(next.Status) != "6/2A09" {
		t.Error(text(next.Status))
	}
	r.unit.power.Store(powerStopped)
	if next := c.Again(); text(next.Status) != "2/0402" {
		t.Error(text(next.Status))
	}
}

func BenchmarkTaskSet(b *testing.B) {
	for _, attr := range []Attribute{Simple, Ordered, HeadOfQueue} {
		b.Run(fmt.Sprint(attr), func(b *testing.B) {
			set, p, c := taskSet{}, &player{log: new([]string)}, &Command{attribute: attr}
			b.ReportAllocs()
			for b.Loop() {
				p.Turn = Turn{}
				set.join(&p.Turn, c, p)
				p.Leave()
			}
		})
	}
}

// With TST 001b nexuses do not wait for each other.
func TestTaskSetPerNexus(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	other := r.attach(NexusConfig{InitiatorPort: "b"})
	log := []string{}
	join := func(n *Nexus, a Attribute) bool {
		c := n.Decode([8]byte{}, a, parse(t, "00"))
		p := &player{log: &log}
		return c.Join(&p.Turn, p)
	}
	r.unit.settings.Store(&settings{TaskPolicy: TaskPolicy{SetPerNexus: true}})
	got := []bool{join(r.nexus, Ordered), join(other, Ordered), join(r.nexus, Simple), join(other, Simple)}
	if !slices.Equal(got, []bool{false, false, true, true}) {
		t.Error(got)
	}
	r.unit.settings.Store(&settings{})
	if got := []bool{join(r.nexus, Ordered), join(other, Ordered)}; !slices.Equal(got, []bool{false, true}) {
		t.Error(got)
	}
}

func TestTasksCleared(t *testing.T) {
	r := newRig(t, newDisk(64, 512))
	other := r.attach(NexusConfig{InitiatorPort: "b"})
	r.unit.TasksCleared(other)
	r.expect("good", "00")
	if _, st := run(t, other, "00", nil); text(st) != "6/2F00" {
		t.Error(text(st))
	}
}
