package isns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// script is how a fake server answers: with bytes, or nil for silence.
type script func(message) []byte

// honest answers as a server that has whatever was registered.
func honest(m message) []byte {
	l := attrs{}
	if m.function == devAttrQry {
		all, _ := parseAttrs(m.payload)
		l = attrs{none(tagDelimiter), all[0]}
	}
	return reply(m, Success, l)
}

func reply(m message, s Status, l attrs) []byte {
	return message{function: m.function | response, transaction: m.transaction, payload: answer(s, l)}.append(nil)
}

// serve answers until the connection ends.
func (s script) serve(nc net.Conn) {
	defer nc.Close()
	r := messageReader{nc, maxAnswer}
	for {
		m, err := r.next()
		if err != nil {
			return
		}
		if b := s(m); b != nil {
			if _, err := nc.Write(b); err != nil {
				return
			}
		}
	}
}

// imagined is a client in a bubble of fake time, whose server is a pipe.
type imagined struct {
	*Client
	log   *buffer
	dials []time.Duration // when, since the beginning
	begun time.Time
}

func imagine(t *testing.T, c Config, dial func() (net.Conn, error)) *imagined {
	t.Helper()
	x := &imagined{log: &buffer{}, begun: time.Now()}
	c.Server, c.EntityID = "isns.example", entityID
	c.Log = slog.New(slog.NewTextHandler(x.log, nil))
	var err error
	if x.Client, err = New(c); err != nil {
		t.Fatal(err)
	}
	x.dial = func(context.Context, string) (net.Conn, error) {
		x.dials = append(x.dials, time.Since(x.begun))
		return dial()
	}
	if err := x.Set(registration(disk)); err != nil {
		t.Fatal(err)
	}
	return x
}

// piped connects to a script.
func piped(s script) func() (net.Conn, error) {
	return func() (net.Conn, error) {
		a, b := net.Pipe()
		go s.serve(b)
		return a, nil
	}
}

// runFor runs the client for d of fake time and returns how long its end took.
func (x *imagined) runFor(t *testing.T, d time.Duration) time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	time.AfterFunc(d, cancel)
	<-ctx.Done()
	ended := time.Now()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	return time.Since(ended)
}

// The time between two attempts doubles up to a minute.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := imagine(t, Config{}, func() (net.Conn, error) { return nil, errors.New("connection refused") })
		if d := x.runFor(t, 200*time.Second); d != 0 {
			t.Errorf("the end took %s", d)
		}
		want := []int{0, 1, 3, 7, 15, 31, 63, 123, 183}
		if len(x.dials) != len(want) {
			t.Fatalf("attempts at %v, want %v s", x.dials, want)
		}
		for i, d := range x.dials {
			if d != time.Duration(want[i])*time.Second {
				t.Errorf("attempts at %v, want %v s", x.dials, want)
			}
		}
		if n := strings.Count(x.log.String(), "trying again"); n != 1 {
			t.Errorf("the same was said %d times:\n%s", n, x.log)
		}
	})
}

// A server that was good for a while is tried again at once.
func TestBackoffAfterAGoodConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := imagine(t, Config{}, func() (net.Conn, error) {
			a, b := net.Pipe()
			go script(honest).serve(b)
			time.AfterFunc(10*time.Minute, func() { b.Close() })
			return a, nil
		})
		x.runFor(t, 35*time.Minute)
		// And one to deregister.
		if len(x.dials) != 5 || x.dials[3] != 30*time.Minute+3*time.Second {
			t.Errorf("connected at %v", x.dials)
		}
	})
}

// The server hears from a client at least thrice in its registration period,
// also where it makes the period shorter than was asked for.
func TestKeepsRegistration(t *testing.T) {
	for _, c := range []struct {
		period uint32 // seconds, the server's; 0: it says nothing
		rest   time.Duration
	}{{0, usual.alive}, {30, 10 * time.Second}, {3600, usual.alive}} {
		synctest.Test(t, func(t *testing.T) {
			var heard []time.Duration
			begun := time.Now()
			x := imagine(t, Config{}, piped(func(m message) []byte {
				heard = append(heard, time.Since(begun))
				if m.function == devAttrReg && c.period != 0 {
					return reply(m, Success, attrs{none(tagDelimiter), number(tagRegistrationPeriod, c.period)})
				}
				return honest(m)
			}))
			x.runFor(t, 20*time.Minute)
			if len(x.dials) != 2 { // the second is to deregister
				t.Errorf("connected at %v", x.dials)
			}
			if len(heard) < int(20*time.Minute/c.rest) {
				t.Errorf("heard at %v", heard)
			}
			for i := 1; i < len(heard); i++ {
				if heard[i]-heard[i-1] > c.rest {
					t.Errorf("a rest of %s, at most %s wanted", heard[i]-heard[i-1], c.rest)
				}
			}
		})
	}
}

// Where no target remains the entity goes before the new targets come, in the
// name of an old one: a server hears about an entity from its own nodes only.
func TestAllTargetsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []string
		x := imagine(t, Config{}, piped(func(m message) []byte {
			l, _ := parseAttrs(m.payload)
			heard = append(heard, m.function.String()+" by "+l[0].text())
			return honest(m)
		}))
		time.AfterFunc(10*time.Second, func() {
			if err := x.Set(registration(tape)); err != nil {
				t.Error(err)
			}
		})
		x.runFor(t, time.Minute)
		want := []string{"DevAttrReg by " + disk, "DevDereg by " + disk, "DevAttrReg by " + tape, "DevDereg by " + tape}
		if !slices.Equal(heard, want) {
			t.Errorf("heard %q, want %q", heard, want)
		}
	})
}

// Access is asked for every minute.
func TestRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		x := imagine(t, Config{AccessControl: true}, piped(func(m message) []byte {
			all, _ := parseAttrs(m.payload)
			if m.function != devAttrQry || all[1].tag != tagNodeType {
				return honest(m)
			}
			if kind, _ := all[1].number(); kind != nodeInitiator {
				return reply(m, NoSuchEntry, nil)
			}
			if n++; n == 3 {
				return reply(m, Busy, nil) // the last answer holds
			}
			return reply(m, Success, attrs{none(tagDelimiter), text(tagNodeName, strings.ToUpper(initiator)), number(tagNodeType, nodeInitiator)})
		}))
		if x.Allowed(disk, initiator) {
			t.Error("allowed before the server was reached")
		}
		x.runFor(t, 10*time.Minute+time.Second)
		if n != 11 {
			t.Errorf("asked %d times in ten minutes", n)
		}
		if !strings.Contains(x.log.String(), "its last answer holds") {
			t.Errorf("the log does not say what failed:\n%s", x.log)
		}
		if !x.Allowed(disk, initiator) || x.Allowed(tape, initiator) || x.Allowed(disk, stranger) {
			t.Error("allowed is not what the server said")
		}
	})
}
