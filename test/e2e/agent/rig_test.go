package agent

import (
	"context"
	"net"
	"sync"
	"testing"
)

// serve runs an agent on a loopback port for the test's time.
func serve(t *testing.T) (*Client, *Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx, l); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		s.KillStarted()
		cancel()
		serving.Wait()
	})
	return &Client{Connect: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}}, s
}

func sh(script string) Command { return Command{Args: []string{"sh", "-c", script}} }
