package session

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

// sendThrough runs an outbox and returns what a reader of its connection gets.
func sendThrough(t *testing.T, fill func(*outbox)) []pdu.PDU {
	t.Helper()
	server, client := net.Pipe()
	o := newOutbox(server, newWindow(10, 5), 100, time.Second, pdu.Digests{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := o.run(); err != nil {
			t.Error(err)
		}
		_ = server.Close()
	})
	wg.Go(func() { fill(o); o.finish() })
	var got []pdu.PDU
	r := pdu.NewReader(client, 1<<20, 0)
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Data = append([]byte(nil), p.Data...)
		got = append(got, p)
	}
	wg.Wait()
	return got
}

func TestOutboxNumbers(t *testing.T) {
	got := sendThrough(t, func(o *outbox) {
		o.send(pdu.NopIn{}.Header(), nil, nil, nextStatSN)
		o.send(pdu.NopIn{}.Header(), []byte("a"), nil, takesStatSN)
		o.send(pdu.DataIn{}.Header(), []byte("abcde"), nil, noStatSN)
		o.post(pdu.NopIn{}.Header(), takesStatSN)
		o.send(pdu.NopIn{}.Header(), nil, nil, nextStatSN)
	})
	want := []struct {
		statSN uint32
		data   string
	}{{100, ""}, {100, "a"}, {0, "abcde"}, {101, ""}, {102, ""}}
	if len(got) != len(want) {
		t.Fatalf("%d PDUs", len(got))
	}
	for i, p := range got {
		exp, most := p.BHS.Window()
		if p.BHS.StatSN() != want[i].statSN || string(p.Data) != want[i].data || exp != 10 || most != 14 {
			t.Errorf("PDU %d: StatSN %d, window %d..%d, %q", i, p.BHS.StatSN(), exp, most, p.Data)
		}
	}
}

// More PDUs than one vectored write takes keep their order.
func TestOutboxBatches(t *testing.T) {
	const n = 3*writeBatch + 7
	got := sendThrough(t, func(o *outbox) {
		for i := range uint32(n) {
			o.send(pdu.NopIn{ITT: i}.Header(), make([]byte, i%5), nil, takesStatSN)
		}
	})
	if len(got) != n {
		t.Fatalf("%d PDUs", len(got))
	}
	for i, p := range got {
		if p.BHS.ITT() != uint32(i) || p.BHS.StatSN() != 100+uint32(i) || len(p.Data) != i%5 {
			t.Fatalf("PDU %d: tag %d, StatSN %d", i, p.BHS.ITT(), p.BHS.StatSN())
		}
	}
}

// Senders wait while too much is queued; posts do not; the end wakes everybody
// and frees what is queued.
func TestOutboxLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := NewBudget(4 << 20)
		a := &account{budget: budget, limit: 4 << 20}
		server, client := net.Pipe()
		o := newOutbox(server, newWindow(1, 1), 1, time.Minute, pdu.Digests{})
		var sent atomic.Int32
		var senders sync.WaitGroup
		for range 12 {
			senders.Go(func() {
				buf := a.tryGet(maxBuffer)
				o.send(pdu.DataIn{}.Header(), buf.b, buf, noStatSN)
				sent.Add(1)
			})
		}
		synctest.Wait() // for ever, where those that wait wake each other
		if n := sent.Load(); n != outboxLimit/maxBuffer {
			t.Errorf("%d PDUs queued", n)
		}
		o.post(pdu.NopIn{}.Header(), takesStatSN)
		o.close()
		senders.Wait()
		if err := o.run(); err != nil {
			t.Error(err)
		}
		if budget.Used() != 0 {
			t.Errorf("%d bytes still out", budget.Used())
		}
		_ = server.Close()
		_ = client.Close()
	})
}

// A connection that takes nothing ends the outbox, which frees what it has.
func TestOutboxTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &account{budget: NewBudget(1 << 20), limit: 1 << 20}
		server, client := net.Pipe()
		o := newOutbox(server, newWindow(1, 1), 1, time.Minute, pdu.Digests{})
		buf := a.tryGet(100)
		o.send(pdu.DataIn{}.Header(), buf.b, buf, noStatSN)
		start := time.Now()
		if err := o.run(); err == nil || time.Since(start) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		late := a.tryGet(100)
		o.send(pdu.DataIn{}.Header(), late.b, late, noStatSN)
		if a.budget.Used() != 0 {
			t.Errorf("%d bytes still out", a.budget.Used())
		}
		_ = server.Close()
		_ = client.Close()
	})
}

// full is a connection that takes nothing, nor soon.
type full struct{ net.Conn }

func (full) SetWriteDeadline(time.Time) error { return nil }
func (full) WriteNow([][]byte) (int, error)   { return 0, nil }
func (full) AwaitRoom() error                 { return os.ErrDeadlineExceeded }

// What is sent when run has written all that there was to write is nobody's to write any
// more: its memory is given back.
func TestOutboxIsFinished(t *testing.T) {
	a := &account{budget: NewBudget(1 << 20), limit: 1 << 20}
	o := newOutbox(full{}, newWindow(1, 1), 1, time.Minute, pdu.Digests{})
	o.finish()
	if err := o.run(); err != nil {
		t.Error(err)
	}
	buf := a.tryGet(100)
	o.send(pdu.DataIn{}.Header(), buf.b, buf, noStatSN)
	o.close()
	if a.budget.Used() != 0 {
		t.Errorf("%d bytes still out", a.budget.Used())
	}
}
