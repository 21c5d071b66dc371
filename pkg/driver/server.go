package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
)

const (
	// maxMessageSize bounds one request. The largest that the CSI field
	// limits allow has a few tens of KiB; room beyond that lets a field that
	// is too long be refused by its name.
	maxMessageSize = 4 << 20
	// stopTimeout is how long calls in flight may go on when the server is
	// told to stop; then their contexts end.
	stopTimeout = 20 * time.Second
	// probeTimeout bounds the question whether anyone answers on a socket
	// that exists.
	probeTimeout = 2 * time.Second
)

// Serve serves gRPC on a unix socket until ctx ends, then lets the calls in
// flight finish. Every call passes the driver's interceptors, which log to the
// context's logger. The endpoint is unix:///path or a path.
func Serve(ctx context.Context, endpoint string, register func(*grpc.Server), opts ...grpc.ServerOption) error {
	listener, err := listenUnix(ctx, endpoint)
	if err != nil {
		return err
	}
	server := grpc.NewServer(append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(interceptors(klog.FromContext(ctx))...),
		grpc.MaxRecvMsgSize(maxMessageSize),
	}, opts...)...)
	register(server)

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", endpoint, err)
	case <-ctx.Done():
	}
	stopServer(server, stopTimeout)
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", endpoint, err)
	}
	return nil
}

// stopServer ends a server gracefully, and by force after the timeout.
func stopServer(server *grpc.Server, timeout time.Duration) {
	force := time.AfterFunc(timeout, server.Stop)
	defer force.Stop()
	server.GracefulStop()
}

// endpointPath returns the path of a unix endpoint.
func endpointPath(endpoint string) (string, error) {
	path := endpoint
	if rest, ok := strings.CutPrefix(endpoint, "unix:"); ok {
		path = rest
		if host, ok := strings.CutPrefix(rest, "//"); ok {
			path = host
		}
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("endpoint %q: only unix sockets are served; give unix:///path", endpoint)
	}
	return filepath.Clean(path), nil
}

// listenUnix makes the socket, for its owner alone, and takes the place of one
// that a dead process left behind.
func listenUnix(ctx context.Context, endpoint string) (net.Listener, error) {
	path, err := endpointPath(endpoint)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", endpoint, err)
	}
	if err := removeStaleSocket(ctx, path); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", endpoint, err)
	}
	config := net.ListenConfig{Control: ownerOnly}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", endpoint, err)
	}
	return listener, nil
}

// ownerOnly runs between socket and bind: bind gives the file the mode of the
// socket's inode, so it never exists with a wider one.
func ownerOnly(_, _ string, raw syscall.RawConn) error {
	var chmod error
	if err := raw.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	return chmod
}

// removeStaleSocket removes a socket that nobody answers on. Anything else in
// that place is an error and stays.
func removeStaleSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket; move it away", path)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another process serves %s; stop it first", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("cannot tell whether %s is in use: %w", path, err)
	}
	return os.Remove(path)
}
