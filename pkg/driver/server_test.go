package driver

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
)

func TestEndpointPath(t *testing.T) {
	for endpoint, want := range map[string]string{
		"unix:///run/x/csi.sock":       "/run/x/csi.sock",
		"unix:/run/x/csi.sock":         "/run/x/csi.sock",
		"/run/x/../csi.sock":           "/run/csi.sock",
		"unix://run/csi.sock":          "",
		"tcp://127.0.0.1:1":            "",
		"csi.sock":                     "",
		"":                             "",
		"/" + strings.Repeat("x", 107): "",
	} {
		got, err := endpointPath(endpoint)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("endpointPath(%q) = %q, %v; want %q", endpoint, got, err, want)
		}
	}
}

// serving runs Serve until the test ends and returns a connection to it.
func serving(t *testing.T, socket string, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, "unix://"+socket, register) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return dial(t, socket)
}

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func registerIdentity(s *grpc.Server) { csi.RegisterIdentityServer(s, NewIdentity("test", nil)) }

func TestServe(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "made", "csi.sock")
	identity := csi.NewIdentityClient(serving(t, socket, registerIdentity))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := identity.Probe(ctx, &csi.ProbeRequest{}); err != nil {
		t.Fatal(err)
	}
	assertMode(t, socket, 0o600)
	assertMode(t, filepath.Dir(socket), 0o700)

	_, err := listenUnix(ctx, socket)
	if err == nil || !strings.Contains(err.Error(), "another process serves this socket") {
		t.Errorf("a second server on the socket: %v", err)
	}
	if _, err := identity.Probe(ctx, &csi.ProbeRequest{}); err != nil {
		t.Errorf("the first server suffered: %v", err)
	}
}

func assertMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != want {
		t.Errorf("%s has mode %o, want %o", path, got, want)
	}
}

func TestServeRemovesItsSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, socket, registerIdentity) }()
	conn := dial(t, socket)
	if _, err := csi.NewIdentityClient(conn).Probe(t.Context(), &csi.ProbeRequest{}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestStaleSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := listenUnix(t.Context(), socket)
	if err != nil {
		t.Fatalf("a dead process's socket is in the way: %v", err)
	}
	l.Close()
}

func TestNoSocketInThatPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(t.Context(), path); err == nil {
		t.Fatal("a regular file was taken for a stale socket")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Fatalf("the file is %q, %v", data, err)
	}
}

// TestSocketModeIgnoresUmask: the mode is there at bind, whatever the umask.
func TestSocketModeIgnoresUmask(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	socket := filepath.Join(t.TempDir(), "csi.sock")
	l, err := listenUnix(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	assertMode(t, socket, 0o600)
}

// blocking is an Identity whose Probe waits.
type blocking struct {
	csi.UnimplementedIdentityServer
	entered, release chan struct{}
}

func (b *blocking) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	close(b.entered)
	<-b.release
	return &csi.ProbeResponse{}, nil
}

func TestServeFinishesCallsInFlight(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "csi.sock")
	b := &blocking{entered: make(chan struct{}), release: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, socket, func(s *grpc.Server) { csi.RegisterIdentityServer(s, b) }) }()
	called := make(chan error, 1)
	conn := dial(t, socket)
	go func() {
		_, err := csi.NewIdentityClient(conn).Probe(context.Background(), &csi.ProbeRequest{})
		called <- err
	}()
	<-b.entered
	cancel()
	close(b.release)
	if err := <-called; status.Code(err) != codes.OK {
		t.Errorf("the call in flight got %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
