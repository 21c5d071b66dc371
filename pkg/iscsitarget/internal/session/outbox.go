package session

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

const (
	// outboxLimit is how many bytes wait for the socket before senders do.
	outboxLimit = 2 << 20
	// corkLimit is how many bytes the reader gathers before they are written: few enough to
	// be in a processor's own cache still.
	corkLimit = 640 << 10
)

// outgoing is a PDU on its way: buf, which data lies in, is freed once it is
// written or dropped.
type outgoing struct {
	header pdu.BHS
	data   []byte
	buf    *buffer
	// What run adds: it must stay in memory for as long as it writes.
	headerDigest [pdu.DigestLen]byte
	tail         [3 + pdu.DigestLen]byte // padding and data digest
}

// appendTo adds the PDU's parts to a vectored write. Its header is complete.
func (p *outgoing) appendTo(vec net.Buffers, d pdu.Digests) net.Buffers {
	if p.header.Opcode() == pdu.OpLoginResponse {
		d = pdu.Digests{} // they begin behind it, with full-feature phase
	}
	vec = append(vec, p.header[:])
	if d.Header {
		p.headerDigest = pdu.Digest(p.header[:])
		vec = append(vec, p.headerDigest[:])
	}
	if len(p.data) == 0 {
		return vec
	}
	vec = append(vec, p.data)
	n := pdu.Pad(len(p.data))
	if d.Data {
		digest := pdu.Digest(p.data, p.tail[:n])
		n += copy(p.tail[n:], digest[:])
	}
	if n > 0 {
		vec = append(vec, p.tail[:n])
	}
	return vec
}

// sequence says what a PDU does to StatSN (RFC 7143 section 4.2.2.2).
type sequence uint8

const (
	// noStatSN: the field is reserved, as in a Data-In without status.
	noStatSN sequence = iota
	// nextStatSN: the field holds the next StatSN, which stays the next.
	nextStatSN
	// takesStatSN: the PDU carries status and advances StatSN.
	takesStatSN
)

// outbox is a connection's send queue: any goroutine puts PDUs in. Whoever does so
// writes them, and with them what others put in meanwhile, as many with one system call
// as are there; what the connection does not take soon is left to run. While the
// connection's reader is at work the outbox is corked: what is put in waits until the
// reader has done all that it has in hand, and leaves together.
type outbox struct {
	socket *socket
	corked atomic.Bool
	// gatherers are those who flush when they have put in what they have.
	gatherers atomic.Int32
	// keeps: PDUs with status are kept until they are acknowledged, for error
	// recovery above level 0.
	keeps bool

	mu     sync.Mutex
	change *sync.Cond
	queue  []outgoing
	spare  []outgoing
	bytes  int   // in queue and behind
	busy   bool  // somebody has the socket
	stuck  bool  // run is to have it: there is more than the connection took
	failed error // of writing
	statSN uint32
	acked  uint32 // below it the initiator has everything
	held   bool   // what is added waits in behind, for a Response Fence
	behind []outgoing
	aside  int // bytes in behind that are on no budget
	closed bool
	drain  bool // run ends when the queue is empty
	// unacked are the PDUs with status that are kept, by StatSN; retains says that
	// they are though the connection has closed.
	unacked []answer
	retains bool
	kept    int       // bytes with them
	owed    int       // bytes that were kept since the initiator was asked to acknowledge
	asked   time.Time // since when it has been, and has acknowledged nothing
}

func newOutbox(conn net.Conn, w *window, statSN uint32, timeout time.Duration, d pdu.Digests) *outbox {
	o := &outbox{socket: newSocket(conn, w, timeout, d), statSN: statSN, acked: statSN}
	o.change = sync.NewCond(&o.mu)
	return o
}

// send queues a PDU, and waits before that while too much is queued already. It takes
// over buf. After the connection has failed it drops the PDU.
func (o *outbox) send(h pdu.BHS, data []byte, buf *buffer, seq sequence) {
	o.mu.Lock()
	o.await()
	if o.add(h, data, buf, nil, seq) {
		o.flush()
	}
}

// room waits until there is room for more, as send does.
func (o *outbox) room() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.await()
}

// hasRoom says that room would not wait.
func (o *outbox) hasRoom() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.full()
}

// full: who sends waits. o.mu is held.
func (o *outbox) full() bool { return !o.closed && !o.held && o.bytes >= outboxLimit }

// await is room where o.mu is held. Nobody waits for what a fence holds back: the reader
// is to hear of the acknowledgement that lets it go.
func (o *outbox) await() {
	for o.full() {
		// The reader may be who waits. run is told once: told by each of several that
		// wait, they would wake each other without end.
		if o.corked.Swap(false) {
			o.change.Broadcast()
		}
		o.change.Wait()
	}
}

// outstanding is how many answers an initiator has not acknowledged that expects this
// StatSN.
func (o *outbox) outstanding(expStatSN uint32) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return int(int32(o.statSN - expStatSN))
}

// backedUp: the connection takes less than there is.
func (o *outbox) backedUp() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stuck || o.bytes >= corkLimit
}

// post queues a PDU and waits for nothing, not even for the system call: for answers
// whose number is bounded otherwise, and for those who hold a lock.
func (o *outbox) post(h pdu.BHS, seq sequence) { o.postData(h, nil, seq) }

// postData is post with a data segment.
func (o *outbox) postData(h pdu.BHS, data []byte, seq sequence) { o.leave(h, data, nil, nil, seq) }

// postPart is post for a Data-In that is held in buf, too.
func (o *outbox) postPart(h pdu.BHS, data []byte, buf *buffer) {
	o.leave(h, data, buf, nil, noStatSN)
}

// postStatus is postData for the status of a task; it says whether the status is
// kept.
func (o *outbox) postStatus(h pdu.BHS, data []byte, t *task) (kept bool) {
	return o.leave(h, data, nil, t, takesStatSN)
}

// leave queues a PDU for run to write.
func (o *outbox) leave(h pdu.BHS, data []byte, buf *buffer, t *task, seq sequence) (kept bool) {
	o.mu.Lock()
	kept = o.keeps && (!o.closed || o.retains)
	if o.add(h, data, buf, t, seq) {
		o.change.Broadcast()
	}
	return kept
}

// offer is send, of the last Data-In of a read with its status, for one who gathers and does
// not wait for the connection.
func (o *outbox) offer(h pdu.BHS, data []byte, buf *buffer) {
	o.mu.Lock()
	if o.add(h, data, buf, nil, takesStatSN) {
		o.flushBy((*socket).writeNow)
	}
}

// retract takes the R2T with that Target Transfer Tag back, if it has not gone yet.
func (o *outbox) retract(ttt uint32) {
	asks := func(p outgoing) bool {
		return p.header.Opcode() == pdu.OpR2T && pdu.ParseR2T(&p.header).TTT == ttt
	}
	o.mu.Lock()
	before := len(o.queue)
	o.queue, o.behind = slices.DeleteFunc(o.queue, asks), slices.DeleteFunc(o.behind, asks)
	o.bytes -= pdu.BHSLen * (before - len(o.queue))
	o.mu.Unlock()
	o.change.Broadcast()
}

// add queues a PDU and releases o.mu, which is held. due says that somebody is to write
// it, since nobody who is at work will.
func (o *outbox) add(h pdu.BHS, data []byte, buf *buffer, t *task, seq sequence) (due bool) {
	h.SetDataLen(len(data))
	if seq != noStatSN {
		h.SetStatSN(o.statSN)
	}
	if seq == takesStatSN {
		o.statSN++
		if o.keeps && (!o.closed || o.retains) {
			a := answer{h, data, t}
			o.unacked = append(o.unacked, a)
			o.kept += a.size()
			defer o.press(t)
		}
	}
	if o.closed {
		o.mu.Unlock()
		buf.free()
		return false
	}
	if o.held {
		o.setAside(outgoing{header: h, data: data, buf: buf})
	} else {
		o.queue = append(o.queue, outgoing{header: h, data: data, buf: buf})
	}
	o.bytes += pdu.BHSLen + len(data)
	due = !o.busy && o.ripe()
	o.mu.Unlock()
	return due
}

// ripe: what is queued need not wait for more. o.mu is held.
func (o *outbox) ripe() bool {
	return o.bytes >= corkLimit || !o.corked.Load() && o.gatherers.Load() == 0
}

// gather has what is sent from now on wait for scatter, as cork does; several may gather.
func (o *outbox) gather() { o.gatherers.Add(1) }

// scatter writes what has waited. Of no outbox it does nothing.
func (o *outbox) scatter() {
	if o != nil {
		o.gatherers.Add(-1)
		o.flush()
	}
}

// scatterNow is scatter for one who does not wait for the connection: what it does not take
// at once is left to run.
func (o *outbox) scatterNow() {
	o.gatherers.Add(-1)
	if o.mu.Lock(); o.ripe() {
		o.mu.Unlock()
		o.flushBy((*socket).writeNow)
		return
	}
	o.mu.Unlock()
}

// cork has what is sent from now on wait for uncork.
func (o *outbox) cork() { o.corked.Store(true) }

// uncork writes what has waited.
func (o *outbox) uncork() {
	if o.corked.Load() {
		o.corked.Store(false)
		o.flush()
	}
}

// flush writes what is queued, as far as the connection takes it soon.
func (o *outbox) flush() { o.flushBy((*socket).writeSoon) }

// flushBy writes what is queued by one of socket's ways to do so.
func (o *outbox) flushBy(write func(*socket) (all bool, err error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.socket.nowait == nil {
		o.change.Broadcast()
		return
	}
	for !o.busy && !o.closed && len(o.queue) > 0 {
		o.begin()
		o.mu.Unlock()
		all, err := write(o.socket)
		o.mu.Lock()
		if err == nil && !all && !o.closed {
			o.stuck = true
			o.change.Broadcast()
			return
		}
		o.end(err)
	}
}

// begin takes the socket, and all that is queued. o.mu is held.
func (o *outbox) begin() {
	o.busy = true
	o.socket.begin(o.queue)
	o.queue, o.spare = o.spare[:0], nil
	if o.bytes >= outboxLimit {
		o.change.Broadcast()
	}
	o.bytes = 0
}

// end gives the socket back. o.mu is held.
func (o *outbox) end(err error) {
	o.spare = o.socket.end()
	o.busy, o.stuck = false, false
	if err != nil && o.failed == nil {
		o.failed = err
		o.shut()
	}
	if o.drain {
		o.change.Broadcast() // run waits for this
	}
}

// run writes what others leave to it, until the outbox is closed, or finished and empty.
// It returns the error that ended it.
func (o *outbox) run() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		due := len(o.queue) > 0 && !o.busy && o.ripe()
		switch {
		case o.closed && o.stuck:
			o.end(nil)
		case o.closed:
			return o.failed
		case o.drain && len(o.queue) == 0 && !o.busy:
			o.shut() // what comes now would be left to nobody
			return nil
		case due:
			o.begin()
			fallthrough
		case o.stuck:
			o.stuck = false
			o.mu.Unlock()
			err := o.socket.write()
			o.mu.Lock()
			o.end(err)
		default:
			o.change.Wait()
		}
	}
}

// finish lets run end once everything queued is written, and what a fence holds back,
// which would be lost otherwise.
func (o *outbox) finish() {
	o.mu.Lock()
	o.drain = true
	o.corked.Store(false)
	o.mu.Unlock()
	o.letGo()
}

// close drops what is queued and wakes everybody.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut()
}

// shut is close where o.mu is held.
func (o *outbox) shut() {
	o.closed = true
	queue := append(o.queue, o.behind...)
	o.queue, o.behind = nil, nil
	o.change.Broadcast()
	for i := range queue {
		queue[i].buf.free()
	}
}
