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
	// maxSocketPath is what sun_path holds beside its NUL (unix(7)).
	maxSocketPath = 107
)

// Serve is Listen and ServeOn.
func Serve(ctx context.Context, endpoint string, register func(*grpc.Server), opts ...grpc.ServerOption) error {
	listener, err := Listen(ctx, endpoint)
	if err != nil {
		return err
	}
	return ServeOn(ctx, listener, register, opts...)
}

// ServeOn serves gRPC on a listener until ctx ends, lets the calls in flight
// finish, and closes the listener. Every call passes the driver's interceptors,
// which log to the context's logger; interceptors among the options are outside
// of them and see the final status.
func ServeOn(ctx context.Context, listener net.Listener, register func(*grpc.Server), opts ...grpc.ServerOption) error {
	server := grpc.NewServer(append(opts,
		grpc.ChainUnaryInterceptor(interceptors(klog.FromContext(ctx))...),
		grpc.MaxRecvMsgSize(maxMessageSize),
	)...)
	register(server)
	return serve(ctx, listener, server, nil)
}

// serve runs a server until ctx ends, or until something arrives on failed,
// which is then its error.
func serve(ctx context.Context, listener net.Listener, server *grpc.Server, failed <-chan error) (err error) {
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case err = <-failed:
	case <-ctx.Done():
	}
	stopServer(server, stopTimeout)
	if stopped := <-served; stopped != nil && !errors.Is(stopped, grpc.ErrServerStopped) {
		err = errors.Join(err, fmt.Errorf("serve %s: %w", listener.Addr(), stopped))
	}
	return err
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
	if path = filepath.Clean(path); len(path) > maxSocketPath {
		return "", fmt.Errorf("endpoint %q: the kernel takes socket paths of %d bytes at most, this one has %d", endpoint, maxSocketPath, len(path))
	}
	return path, nil
}

// Listen makes the socket of an endpoint, unix:///path or a path, for its owner
// alone, and takes the place of one that a dead process left behind. From then
// on callers can connect; they are answered once ServeOn runs. Closing the
// listener removes the socket.
func Listen(ctx context.Context, endpoint string) (net.Listener, error) {
	path, err := endpointPath(endpoint)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", endpoint, err)
	}
	listener, err := listenUnix(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", endpoint, err)
	}
	return listener, nil
}

// listenUnix makes a socket where none is alive.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStaleSocket(ctx, path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: ownerOnly}
	return config.Listen(ctx, "unix", path)
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

// errSocketInUse: somebody answers on the socket.
var errSocketInUse = errors.New("another process serves this socket")

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
		return fmt.Errorf("%w: %s; stop it first", errSocketInUse, path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("cannot tell whether %s is in use: %w", path, err)
	}
	return os.Remove(path)
}
