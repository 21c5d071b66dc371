package blockdevtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/csi-ietd/csi-ietd/pkg/blockdev"
	"github.com/google/go-cmp/cmp"
)

// change is one call that a power cut may hit. The pool holds volume 1, with
// content, and volume 2.
type change struct {
	name string
	call func(t *testing.T, p blockdev.Pool) error
	// became is what the records are when the call is through.
	became []blockdev.Record
}

const oldSize, newSize = 64 << 10, 192 << 10

// before are the records that every change starts from.
func before() []blockdev.Record {
	return []blockdev.Record{record(1, oldSize), record(2, oldSize)}
}

func changes() []change {
	meta, larger := record(1, oldSize), record(1, newSize)
	meta.Meta = json.RawMessage(`{"n":2,"long":"meta"}`)
	return []change{
		{"Create", func(t *testing.T, p blockdev.Pool) error {
			return p.Create(t.Context(), record(3, oldSize))
		}, append(before(), record(3, oldSize))},
		{"Delete", func(t *testing.T, p blockdev.Pool) error {
			return p.Delete(t.Context(), id(2))
		}, before()[:1]},
		{"SetMeta", func(t *testing.T, p blockdev.Pool) error {
			return p.SetMeta(t.Context(), id(1), meta.Meta)
		}, []blockdev.Record{meta, before()[1]}},
		{"Resize", func(t *testing.T, p blockdev.Pool) error {
			return p.Resize(t.Context(), id(1), newSize)
		}, []blockdev.Record{larger, before()[1]}},
		{"Mark", func(t *testing.T, p blockdev.Pool) error {
			return setMark(t, p, blockdev.VolatileMark{BootID: "boot-2"})
		}, before()},
		{"Unmark", func(t *testing.T, p blockdev.Pool) error {
			return setMark(t, p, blockdev.VolatileMark{})
		}, before()},
		{"Keep", func(t *testing.T, p blockdev.Pool) error {
			return setState(t, p, `{"n":2}`)
		}, before()},
		{"Unkeep", func(t *testing.T, p blockdev.Pool) error {
			return setState(t, p, ``)
		}, before()},
		{atomicChange, writeTwice, before()},
	}
}

// setMark marks volume 1; of a backend without marks it changes nothing.
func setMark(t *testing.T, p blockdev.Pool, m blockdev.VolatileMark) error {
	t.Helper()
	d, err := p.Open(t.Context(), id(1))
	ok(t, err)
	marker, marks := d.(blockdev.VolatileMarker)
	if marks {
		err = marker.SetVolatileMark(m)
	}
	ok(t, d.Close())
	return err
}

// setState sets the state of volume 1; of a backend that keeps none it changes
// nothing.
func setState(t *testing.T, p blockdev.Pool, state string) error {
	t.Helper()
	d, err := p.Open(t.Context(), id(1))
	ok(t, err)
	keeper, keeps := d.(blockdev.StateKeeper)
	if keeps {
		err = keeper.SetState(json.RawMessage(state))
	}
	ok(t, d.Close())
	return err
}

const firstState = `{"n":1}`

var firstMark = blockdev.VolatileMark{BootID: "boot-1", Stages: []blockdev.Stage{{Initiator: "iqn.x", Nonce: "n"}}}

// prepare fills a new place with what every change starts from.
func (s PoolSuite) prepare(t *testing.T) (Place, blockdev.Pool) {
	t.Helper()
	place := s.New(t)
	p := open(t, place)
	for _, r := range before() {
		ok(t, p.Create(t.Context(), r))
	}
	d, err := p.Open(t.Context(), id(1))
	ok(t, err)
	write(t, d, 0, pattern(1, oldSize))
	ok(t, d.Sync())
	ok(t, d.Close())
	ok(t, setMark(t, p, firstMark))
	ok(t, setState(t, p, firstState))
	return place, p
}

var errPower = errors.New("the power is off")

// testPowerCut cuts the power before every single step of every change, and
// wants the volume as it was or as it was to be, whatever of the unsynced
// steps survived; once the call has returned nil, only as it was to be.
func (s PoolSuite) testPowerCut(t *testing.T) {
	for _, c := range append(changes(), change{"Open", nil, before()}) {
		t.Run(c.name, func(t *testing.T) {
			steps := 0
			for ; s.cut(t, c, steps); steps++ {
			}
			if steps == 0 && c.call != nil && !s.lacks(t, c) {
				t.Fatal("the change has no step to cut")
			}
		})
	}
}

// testFirstOpen cuts the power before every step of making the pool itself.
func (s PoolSuite) testFirstOpen(t *testing.T) {
	steps := 0
	for reached := true; reached; steps++ {
		place := s.New(t)
		place.Fail(steps, errPower, true)
		p, err := place.Open()
		minted := ""
		if err == nil {
			minted = p.ID()
			ok(t, p.Close())
		}
		reached = place.Reached()
		for i, after := range place.AfterCut(t) {
			t.Run(fmt.Sprintf("step%d/%d", steps, i), func(t *testing.T) {
				p := open(t, after)
				wantRecords(t, p)
				if minted != "" && p.ID() != minted {
					t.Errorf("the pool was %s and is %s", minted, p.ID())
				}
				ok(t, p.Create(t.Context(), record(1, oldSize)))
			})
		}
	}
	if steps < 2 {
		t.Fatal("making a pool has no step to cut")
	}
}

// lacks says that c is about an optional interface that the backend has not.
func (s PoolSuite) lacks(t *testing.T, c change) bool {
	needs := map[string]Capability{"Mark": Marks, "Unmark": Marks, "Keep": Keeps, "Unkeep": Keeps, atomicChange: WritesAtomic}[c.name]
	_, p := s.prepare(t)
	d, err := p.Open(t.Context(), id(1))
	ok(t, err)
	has := capabilities(d)
	ok(t, d.Close())
	return needs&^has != 0
}

// cut cuts the power before step n of c; it reports whether c has that step.
func (s PoolSuite) cut(t *testing.T, c change, n int) bool {
	place, p := s.prepare(t)
	place.Fail(n, errPower, true)
	var err error
	if c.call == nil { // Open, of a pool that exists
		ok(t, p.Close())
		if p, err = place.Open(); err == nil {
			ok(t, p.Close())
		}
	} else {
		err = c.call(t, p)
		ok(t, p.Close())
	}
	reached := place.Reached()
	if !reached && err != nil {
		t.Fatalf("step %d was not reached, and yet: %v", n, err)
	}
	for i, after := range place.AfterCut(t) {
		t.Run(fmt.Sprintf("step%d/%d", n, i), func(t *testing.T) { c.examine(t, after, err == nil) })
	}
	return reached
}

// examine opens a place after a power cut.
func (c change) examine(t *testing.T, place Place, acknowledged bool) {
	p := open(t, place)
	got, err := p.List(t.Context())
	ok(t, err)
	is := func(want []blockdev.Record) bool { return cmp.Equal(got, want) }
	if !is(c.became) && (acknowledged || !is(before())) {
		t.Fatalf("acknowledged %v, and the pool holds (-want +got):\n%s", acknowledged, cmp.Diff(c.became, got))
	}
	c.examineContent(t, p, acknowledged)
	examineMark(t, p, c.name, acknowledged)
	examineState(t, p, c.name, acknowledged)
	for _, r := range got {
		wantContent(t, p, r.ID, r.Size-512, tail(r))
	}
	if c.call == nil {
		return
	}
	// The caller tries again: that settles it.
	if err := c.call(t, p); !isOneOf(err, []error{blockdev.ErrExists, blockdev.ErrNotFound}) {
		t.Fatalf("again: %v", err)
	}
	ok(t, p.Close())
	wantRecords(t, open(t, place), c.became...)
}

// tail is what the last block of a volume holds.
func tail(r blockdev.Record) []byte {
	if r.ID == id(1) && r.Size == oldSize {
		return pattern(1, oldSize)[oldSize-512:]
	}
	return make([]byte, 512)
}

func examineMark(t *testing.T, p blockdev.Pool, call string, acknowledged bool) {
	t.Helper()
	d, err := p.Open(t.Context(), id(1))
	ok(t, err)
	defer d.Close()
	marker, marks := d.(blockdev.VolatileMarker)
	if !marks {
		return
	}
	got, err := marker.VolatileMark()
	ok(t, err)
	allowed := map[string][]blockdev.VolatileMark{
		"Mark":   {{BootID: "boot-2"}, firstMark},
		"Unmark": {{}, firstMark},
	}[call]
	if allowed == nil {
		allowed = []blockdev.VolatileMark{firstMark}
	}
	if acknowledged {
		allowed = allowed[:1]
	}
	if !slices.ContainsFunc(allowed, func(m blockdev.VolatileMark) bool { return cmp.Equal(m, got) }) {
		t.Fatalf("mark is %+v, want one of %+v", got, allowed)
	}
}

func examineState(t *testing.T, p blockdev.Pool, call string, acknowledged bool) {
	t.Helper()
	d, err := p.Open(t.Context(), id(1))
	ok(t, err)
	defer d.Close()
	keeper, keeps := d.(blockdev.StateKeeper)
	if !keeps {
		return
	}
	got, err := keeper.State()
	ok(t, err)
	allowed := map[string][]string{"Keep": {`{"n":2}`, firstState}, "Unkeep": {``, firstState}}[call]
	if allowed == nil {
		allowed = []string{firstState}
	}
	if acknowledged {
		allowed = allowed[:1]
	}
	if !slices.Contains(allowed, string(got)) {
		t.Fatalf("state is %s, want one of %q", got, allowed)
	}
}

var errMedium = errors.New("the medium failed")

// testFailingMedium fails one single step of every change while the pool
// lives on: the call says so, the pool holds the old or the new state, and the
// same call then succeeds.
func (s PoolSuite) testFailingMedium(t *testing.T) {
	for _, c := range changes() {
		t.Run(c.name, func(t *testing.T) {
			for n := 0; s.fail(t, c, n); n++ {
			}
		})
	}
}

func (s PoolSuite) fail(t *testing.T, c change, n int) bool {
	place, p := s.prepare(t)
	place.Fail(n, errMedium, false)
	err := c.call(t, p)
	reached := place.Reached()
	if !reached {
		ok(t, err)
		return false
	}
	if !errors.Is(err, errMedium) {
		t.Fatalf("step %d failed and the call returned %v", n, err)
	}
	got, err := p.List(t.Context())
	ok(t, err)
	if !cmp.Equal(got, c.became) && !cmp.Equal(got, before()) {
		t.Fatalf("step %d failed, and the pool holds %+v", n, got)
	}
	if err := c.call(t, p); !isOneOf(err, []error{blockdev.ErrExists, blockdev.ErrNotFound}) {
		t.Fatalf("step %d failed, and again: %v", n, err)
	}
	wantRecords(t, p, c.became...)
	c.examineContent(t, p, true)
	ok(t, p.Close())
	wantRecords(t, open(t, place), c.became...)
	return true
}
