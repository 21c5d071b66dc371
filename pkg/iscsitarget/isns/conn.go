package isns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// conn is a connection to the server: one request at a time.
type conn struct {
	nc          net.Conn
	transaction uint16
	in          chan message
	quit        chan struct{} // closed by close
	done        chan struct{} // closed when reading ended; err says why
	err         error
}

func newConn(nc net.Conn) *conn {
	c := &conn{nc: nc, in: make(chan message), quit: make(chan struct{}), done: make(chan struct{})}
	go c.read()
	return c
}

// read also notices, between two requests, that the server has gone.
func (c *conn) read() {
	defer close(c.done)
	r := messageReader{c.nc, maxAnswer}
	for {
		m, err := r.next()
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("the server closed the connection: %w", err)
		}
		if err != nil {
			c.err = err
			return
		}
		select {
		case c.in <- m:
		case <-c.quit:
			c.err = net.ErrClosed
			return
		}
	}
}

// close ends the connection and waits for its reader.
func (c *conn) close() {
	close(c.quit)
	c.nc.Close()
	<-c.done
}

// call sends a request and returns the operating attributes of the answer. An
// error that is a Status is the server's; after any other the connection is of
// no more use.
func (c *conn) call(ctx context.Context, f function, replace bool, payload []byte) (attrs, error) {
	c.transaction++
	m := message{function: f, replace: replace, transaction: c.transaction, payload: payload}
	stop := context.AfterFunc(ctx, func() { _ = c.nc.SetWriteDeadline(time.Unix(1, 0)) })
	_, err := c.nc.Write(m.append(nil))
	stop()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f, err)
	}
	select {
	case a := <-c.in:
		if a.function != f|response || a.transaction != c.transaction {
			return nil, fmt.Errorf("%w: %s of transaction %d answered by %s of transaction %d",
				errFormat, f, c.transaction, a.function, a.transaction)
		}
		l, err := parseAnswer(a.payload)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		return l, nil
	case <-c.done:
		return nil, fmt.Errorf("%s: %w", f, c.err)
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer: %w", f, context.Cause(ctx))
	}
}

// local is this host's address towards the server; the zero Addr, where it is
// none of TCP.
func (c *conn) local() netip.Addr { return addrOf(c.nc.LocalAddr()) }

// remote is the server's address.
func (c *conn) remote() netip.Addr { return addrOf(c.nc.RemoteAddr()) }

func addrOf(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// within runs f for at most d.
func within(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}
