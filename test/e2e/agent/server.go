package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// Server executes operations on the machine it runs on.
type Server struct {
	// CgroupRoot is a cgroup v2 directory under which each started process
	// gets a group of its own, so that a kill reaches its children as the
	// end of a container would. Empty: a kill reaches the process group.
	CgroupRoot string

	mu      sync.Mutex
	started map[int]*process
	lastID  int
}

// handlers maps an operation to its implementation. A handler that returns a
// reply is done; one that takes over the connection returns handled.
var handlers = map[string]func(*Server, context.Context, *request, net.Conn) (reply, error){
	"run":     (*Server).run,
	"start":   (*Server).start,
	"signal":  (*Server).signal,
	"wait":    (*Server).wait,
	"read":    (*Server).readFile,
	"write":   (*Server).writeFile,
	"mkdir":   (*Server).mkdir,
	"remove":  (*Server).remove,
	"dial":    (*Server).dial,
	"forward": (*Server).forward,
	"watch":   (*Server).watch,
}

// errHandled says that the handler has answered on the connection itself.
var errHandled = errors.New("handled")

// Serve answers operations on l until ctx is done or l fails. Operations in
// progress are ended with it; processes begun with Start go on.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		conns.Go(func() { s.serveConn(ctx, conn) })
	}
}

func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var req request
	if err := readMessage(conn, &req); err != nil {
		return
	}
	handle := handlers[req.Op]
	if handle == nil {
		_ = writeMessage(conn, failure(fmt.Errorf("unknown operation %q", req.Op)))
		return
	}
	answer, err := handle(s, ctx, &req, conn)
	switch {
	case errors.Is(err, errHandled):
		return
	case err != nil:
		answer = failure(err)
	}
	_ = writeMessage(conn, answer)
}

func (s *Server) readFile(_ context.Context, req *request, _ net.Conn) (reply, error) {
	data, err := os.ReadFile(req.Path)
	return reply{Data: data}, err
}

func (s *Server) writeFile(_ context.Context, req *request, _ net.Conn) (reply, error) {
	if err := os.MkdirAll(filepath.Dir(req.Path), 0o755); err != nil {
		return reply{}, err
	}
	mode := req.Mode
	if mode == 0 {
		mode = 0o644
	}
	return reply{}, os.WriteFile(req.Path, req.Data, mode&fs.ModePerm)
}

func (s *Server) mkdir(_ context.Context, req *request, _ net.Conn) (reply, error) {
	return reply{}, os.MkdirAll(req.Path, req.Mode&fs.ModePerm)
}

func (s *Server) remove(_ context.Context, req *request, _ net.Conn) (reply, error) {
	return reply{}, os.Remove(req.Path)
}

// dial turns the connection into a stream to an address on this machine.
func (s *Server) dial(ctx context.Context, req *request, conn net.Conn) (reply, error) {
	var d net.Dialer
	peer, err := d.DialContext(ctx, req.Network, req.Address)
	if err != nil {
		return reply{}, err
	}
	defer peer.Close()
	if err := writeMessage(conn, reply{}); err != nil {
		return reply{}, err
	}
	Relay(ctx, conn, peer)
	return reply{}, errHandled
}

// forward listens on a unix socket and relays each connection to an address
// that this machine can reach, until the client closes the operation.
func (s *Server) forward(ctx context.Context, req *request, conn net.Conn) (reply, error) {
	if err := os.MkdirAll(filepath.Dir(req.Listen), 0o755); err != nil {
		return reply{}, err
	}
	l, err := listenUnix(req.Listen)
	if err != nil {
		return reply{}, err
	}
	defer l.Close()
	if err := writeMessage(conn, reply{}); err != nil {
		return reply{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer conn.Close()
	watch.Go(func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, conn)
	})
	_ = Forward(ctx, l, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, req.Network, req.Address)
	})
	return reply{}, errHandled
}
