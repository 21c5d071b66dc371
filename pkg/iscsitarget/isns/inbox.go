package isns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxInboxConns bounds the connections from the server: open-isns has one
	// for each target that it notifies.
	maxInboxConns = 256
	// inboxIdle is how long such a connection may rest between two messages,
	// inboxMessage how long one may take to arrive or to be answered.
	inboxIdle    = 10 * time.Minute
	inboxMessage = 30 * time.Second
)

// errUnanswered is a message that gets no answer; who decided so has said why.
var errUnanswered = errors.New("no answer")

// inbox takes the server's own messages, ESI and SCN, on a port of its own.
type inbox struct {
	addr netip.Addr
	port uint16
	// trusts says whether an address is the server's.
	trusts func(netip.Addr) bool
	// answer is a message's response; false: it gets none, and the connection
	// ends.
	answer func(message) (message, bool)
	log    *slog.Logger

	ln     net.Listener
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}
}

// openInbox listens on an ephemeral TCP port of addr.
func openInbox(addr netip.Addr, trusts func(netip.Addr) bool, answer func(message) (message, bool), log *slog.Logger) (*inbox, error) {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return nil, err
	}
	b := &inbox{addr: addr, trusts: trusts, answer: answer, log: log, ln: ln, slots: make(chan struct{}, maxInboxConns)}
	b.port = ln.Addr().(*net.TCPAddr).AddrPort().Port()
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.wg.Go(b.accept)
	return b, nil
}

// close ends the listener and its connections and waits for them.
func (b *inbox) close() {
	b.cancel()
	b.ln.Close()
	b.wg.Wait()
}

func (b *inbox) accept() {
	for {
		nc, err := b.ln.Accept()
		if b.ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil {
			b.log.Warn("Accepting the iSNS server's connection failed", "addr", b.ln.Addr().String(), "err", err)
			b.pause(time.Second)
			continue
		}
		b.admit(nc)
	}
}

// pause waits, after an error such as too many open files.
func (b *inbox) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.ctx.Done():
	}
}

// admit serves a connection, unless it is not the server's or one too many.
func (b *inbox) admit(nc net.Conn) {
	from := addrOf(nc.RemoteAddr())
	if !b.trusts(from) {
		b.log.Warn("Refused an iSNS message that is not from the server", "from", from.String())
		nc.Close()
		return
	}
	select {
	case b.slots <- struct{}{}:
	default:
		b.log.Warn("Refused a connection of the iSNS server, which has too many", "from", from.String(), "most", maxInboxConns)
		nc.Close()
		return
	}
	b.wg.Go(func() {
		defer func() { <-b.slots }()
		stop := context.AfterFunc(b.ctx, func() { nc.Close() })
		defer nc.Close()
		defer stop()
		err := b.serve(nc)
		level := slog.LevelDebug // it went away, or rested too long
		if errors.Is(err, errFormat) {
			level = slog.LevelWarn
		}
		b.log.Log(b.ctx, level, "A connection of the iSNS server ended", "from", from.String(), "err", err)
	})
}

// serve answers messages until the connection ends; its error says why.
func (b *inbox) serve(nc net.Conn) error {
	for {
		_ = nc.SetDeadline(time.Now().Add(inboxIdle))
		m, err := messageReader{&patient{nc: nc}, maxInquiry}.next()
		if err != nil {
			return err
		}
		reply, ok := b.answer(m)
		if !ok {
			return errUnanswered
		}
		_ = nc.SetDeadline(time.Now().Add(inboxMessage))
		if _, err := nc.Write(reply.append(nil)); err != nil {
			return err
		}
	}
}

// patient reads a message: once it has begun, it has inboxMessage to arrive.
type patient struct {
	nc    net.Conn
	begun bool
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.nc.Read(b)
	if n > 0 && !p.begun {
		p.begun = true
		_ = p.nc.SetReadDeadline(time.Now().Add(inboxMessage))
	}
	return n, err
}
