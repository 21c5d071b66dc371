package isns

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"
)

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// patience is how long something may take that should happen at once.
const patience = 20 * time.Second

func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// peer is another client of the server, such as an initiator.
type peer struct {
	t    *testing.T
	conn *conn
	name string
}

func newPeer(t *testing.T, s *isnsd, name string) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t, newConn(nc), name}
	t.Cleanup(p.conn.close)
	return p
}

func (p *peer) call(f function, key, operating attrs) (attrs, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.conn.call(ctx, f, false, request(p.name, key, operating))
}

// register registers an initiator with an entity of its own.
func (p *peer) register() {
	p.t.Helper()
	id := text(tagEntityID, "entity-of-"+p.name)
	_, err := p.call(devAttrReg, attrs{id}, attrs{
		id, number(tagEntityProtocol, entityISCSI),
		text(tagNodeName, p.name), number(tagNodeType, nodeInitiator),
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// sees is what a query of this node for a node by its name answers.
func (p *peer) sees(name string) bool {
	p.t.Helper()
	l, err := p.call(devAttrQry, attrs{text(tagNodeName, name)}, attrs{none(tagNodeName), none(tagNodeType)})
	a, ok := l.find(tagNodeName)
	return err == nil && ok && a.text() == name
}

// running is a client that runs until the test ends, or stop.
type running struct {
	*Client
	log  *buffer
	stop func()
}

func run(t *testing.T, c Config, tm timing, r Registration) *running {
	t.Helper()
	x := &running{log: &buffer{}}
	c.Log = slog.New(slog.NewTextHandler(x.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if x.Client, err = New(c); err != nil {
		t.Fatal(err)
	}
	x.timing = tm
	if err := x.Set(r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		x.stop()
		if t.Failed() {
			t.Logf("the client's log:\n%s", x.log)
		}
	})
	return x
}

// quick is timing for a server on this machine.
var quick = timing{
	call:       5 * time.Second,
	leave:      5 * time.Second,
	minBackoff: 50 * time.Millisecond,
	maxBackoff: time.Second,
	settled:    time.Minute,
	alive:      time.Minute,
	refresh:    time.Minute,
}
