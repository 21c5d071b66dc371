package session

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/csi-ietd/csi-ietd/pkg/iscsitarget/internal/pdu"
)

const (
	// outboxLimit is how many bytes wait for the socket before senders do.
	outboxLimit = 1 << 20
	// writeBatch bounds the PDUs of one vectored write.
	writeBatch = 256
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

// outbox is a connection's send queue: any goroutine puts PDUs in, run alone
// writes them, as many in one vectored write as are there.
type outbox struct {
	conn    net.Conn
	window  *window
	timeout time.Duration
	digests pdu.Digests // of every PDU in full-feature phase
	// keeps: PDUs with status are kept until they are acknowledged, for error
	// recovery above level 0.
	keeps bool

	mu     sync.Mutex
	change *sync.Cond
	queue  []outgoing
	spare  []outgoing
	bytes  int
	statSN uint32
	acked  uint32 // below it the initiator has everything
	held   bool   // what is added waits in behind, for a Response Fence
	behind []outgoing
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
	o := &outbox{conn: conn, window: w, statSN: statSN, acked: statSN, timeout: timeout, digests: d}
	o.change = sync.NewCond(&o.mu)
	return o
}

// send queues a PDU and waits while too much is queued already. It takes over
// buf. After the connection has failed it drops the PDU.
func (o *outbox) send(h pdu.BHS, data []byte, buf *buffer, seq sequence) {
	o.mu.Lock()
	o.await()
	o.add(h, data, buf, nil, seq)
}

// room waits until there is room for more, as send does.
func (o *outbox) room() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.await()
}

// await is room where o.mu is held.
func (o *outbox) await() {
	for !o.closed && o.bytes >= outboxLimit {
		o.change.Wait()
	}
}

// post queues a PDU without waiting: for answers whose number is bounded
// otherwise, and which another session's goroutine may have to send.
func (o *outbox) post(h pdu.BHS, seq sequence) { o.postData(h, nil, seq) }

// postData is post with a data segment.
func (o *outbox) postData(h pdu.BHS, data []byte, seq sequence) {
	o.mu.Lock()
	o.add(h, data, nil, nil, seq)
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

// postPart is post for a Data-In that is held in buf, too.
func (o *outbox) postPart(h pdu.BHS, data []byte, buf *buffer) {
	o.mu.Lock()
	o.add(h, data, buf, nil, noStatSN)
}

// postStatus is postData for the status of a task; it says whether the status is
// kept.
func (o *outbox) postStatus(h pdu.BHS, data []byte, t *task) (kept bool) {
	o.mu.Lock()
	kept = o.keeps && (!o.closed || o.retains)
	o.add(h, data, nil, t, takesStatSN)
	return kept
}

// add queues a PDU and releases o.mu, which is held.
func (o *outbox) add(h pdu.BHS, data []byte, buf *buffer, t *task, seq sequence) {
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
		return
	}
	if o.held {
		o.behind = append(o.behind, outgoing{header: h, data: data, buf: buf})
	} else {
		o.queue = append(o.queue, outgoing{header: h, data: data, buf: buf})
	}
	o.bytes += pdu.BHSLen + len(data)
	o.mu.Unlock()
	o.change.Broadcast()
}

// run writes what is queued until the outbox is closed, or drained and empty.
// It returns the error that ended it.
func (o *outbox) run() error {
	var vec net.Buffers
	for {
		batch := o.take()
		if batch == nil {
			return nil
		}
		err := o.write(batch, &vec)
		for i := range batch {
			batch[i].buf.free()
			batch[i] = outgoing{}
		}
		if err != nil {
			o.close()
			return err
		}
		o.giveBack(batch)
	}
}

// take waits for PDUs and takes all of them; nil means the end.
func (o *outbox) take() []outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) == 0 && !o.closed && !o.drain {
		o.change.Wait()
	}
	if o.closed || len(o.queue) == 0 {
		return nil
	}
	batch := o.queue
	o.queue, o.spare = o.spare[:0], nil
	o.bytes = 0
	o.change.Broadcast()
	return batch
}

func (o *outbox) giveBack(batch []outgoing) {
	o.mu.Lock()
	o.spare = batch[:0]
	o.mu.Unlock()
}

func (o *outbox) write(batch []outgoing, vec *net.Buffers) error {
	for len(batch) > 0 {
		n := min(len(batch), writeBatch)
		*vec = (*vec)[:0]
		for i := range batch[:n] {
			p := &batch[i]
			// The window is read as late as can be: it only ever opens.
			p.header.SetWindow(o.window.advertised())
			*vec = p.appendTo(*vec, o.digests)
		}
		if err := o.conn.SetWriteDeadline(time.Now().Add(o.timeout)); err != nil {
			return err
		}
		v := *vec // WriteTo consumes its receiver
		if _, err := v.WriteTo(o.conn); err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// finish lets run end once everything queued is written.
func (o *outbox) finish() {
	o.mu.Lock()
	o.drain = true
	o.mu.Unlock()
	o.change.Broadcast()
}

// close drops what is queued and wakes everybody.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	queue := append(o.queue, o.behind...)
	o.queue, o.behind = nil, nil
	o.mu.Unlock()
	o.change.Broadcast()
	for i := range queue {
		queue[i].buf.free()
	}
}
