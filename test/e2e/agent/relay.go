package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
)

// closeWriter is a connection that can end one direction, as TCP and unix
// stream connections can.
type closeWriter interface{ CloseWrite() error }

// Relay copies bytes both ways between a and b until both directions have
// ended or ctx is done, passing on the end of one direction. It closes both.
func Relay(ctx context.Context, a, b net.Conn) {
	defer a.Close()
	defer b.Close()
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	var copies sync.WaitGroup
	copies.Go(func() { pipe(a, b) })
	copies.Go(func() { pipe(b, a) })
	copies.Wait()
}

// pipe copies src to dst. A clean end of src is passed on as an end of dst's
// direction alone; a failure breaks both connections, so that the other copy
// ends too.
func pipe(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if half, ok := dst.(closeWriter); ok && err == nil {
		err = half.CloseWrite()
	}
	if err != nil {
		dst.Close()
		src.Close()
	}
}

// Forward accepts connections on l and relays each to what dial returns. It
// returns nil when ctx is done, after the last relay has ended.
func Forward(ctx context.Context, l net.Listener, dial func(context.Context) (net.Conn, error)) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var relays sync.WaitGroup
	defer relays.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		relays.Go(func() {
			peer, err := dial(ctx)
			if err != nil {
				conn.Close() // the caller sees a reset, as with a service that is down
				return
			}
			Relay(ctx, conn, peer)
		})
	}
}

// listenUnix listens on a fresh unix socket at path, replacing a stale one.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}
